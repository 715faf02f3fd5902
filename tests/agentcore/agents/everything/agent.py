import asyncio
import ctypes
import os
import sys
import time
from os.path import join  # noqa: F401  (not a command)
from pathlib import Path

calls = 0


def first():
    return "function"


second = third = fourth = first


def fifth():
    """The fifth.

    Not this.
    """
    return "function"


def give(params, context):
    return params[0]


async def giveLater(params, context):
    await asyncio.sleep(0.005)
    return params[0]


def nothing(params, context):
    pass


def count():
    global calls
    calls += 1
    return calls


def context(params, context):
    names = ("taskId", "command", "user", "requestId", "deadline")
    values = {name: getattr(context, name) for name in names}
    return {"params": params, "aborted": context.signal.aborted, **values}


def log(params, context):
    context.log.info(params[0], extra=1)


def raise_(params, context):
    raise TypeError("it is broken")


class SlowDown(Exception):
    status = 429
    code = "SLOW_DOWN"
    details = {"seconds": 3}


async def refuse(params, context):
    raise SlowDown("Not so fast.")


def strange(params, context):
    error = ValueError("odd")
    error.status = 200
    error.code = 7
    error.details = print
    raise error


def unserialisable(params, context):
    return {"big": {1, 2}}


def counted(params, context):
    for number in range(params[0]):
        yield {"i": number}


async def countedLater(params, context):
    for number in range(params[0]):
        await asyncio.sleep(params[1] / 1000)
        yield {"i": number}


class Half(Exception):
    status = 409
    code = "HALF"


async def halfway(params, context):
    yield 1
    await asyncio.sleep(params[0] / 1000)
    raise Half("half of it")


def atOnce(params, context):
    error = Half("none of it")
    error.code = "NONE"
    raise error
    yield


def strangely(params, context):
    yield 1
    yield {1, 2}


def wide(params, context):
    made = 0
    try:
        while made < params[1]:
            made += 1
            yield "x" * params[2]
    finally:
        Path(params[0] + ".made").write_text(str(made))


async def ticking(params, context):
    try:
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.01)
    finally:
        Path(params[0] + ".told").touch()
        Path(params[0] + ".ended").touch()


def large(params, context):
    return "x" * params[0]


def begin(params, context):
    Path(params[0] + ".begun").touch()
    if context.signal.wait(60):
        Path(params[0] + ".told").touch()


async def beginLater(params, context):
    Path(params[0] + ".begun").touch()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        Path(params[0] + ".told").touch()
        raise


def process(params, context):
    return os.getpid()


def read(params, context):
    Path(params[0] + ".begun").touch()
    return Path(params[0]).read_text()


def spin(params, context):
    Path(params[0] + ".begun").touch()
    while True:
        pass


def stuck(params, context):
    Path(params[0] + ".begun").touch()
    time.sleep(1e6)


def exit(params, context):
    os._exit(3)


async def exitLater(params, context):
    await asyncio.sleep(0.02)
    os._exit(3)


def leave(params, context):
    sys.exit(4)


async def leaveLater(params, context):
    sys.exit(4)


def crash(params, context):
    ctypes.string_at(0)


def _secret():
    return "not public"


globals()["raise"] = raise_
