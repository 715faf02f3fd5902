import asyncio
import json
import sys
import threading


def give(params):
    return params[0]


class UnreadableStatus(Exception):
    @property
    def status(self):
        raise ValueError("nobody may look")


def unreadableStatus():
    raise UnreadableStatus("x")


class UnreadableMessage(Exception):
    def __str__(self):
        return None


def unreadableMessage():
    raise UnreadableMessage


async def unreadableLater():
    raise UnreadableMessage


def unreadableDetails():
    error = ValueError("with deep details")
    error.details = []
    for _ in range(100_000):
        error.details = [error.details]
    raise error


class UnreadableResult:
    @property
    def __next__(self):
        raise ValueError("not today")


def unreadableResult():
    return UnreadableResult()


def log(params, context):
    itself = {}
    itself["itself"] = itself
    context.log.info("odd fields", large=2**64, itself=itself, message="odd fields")
    return "logged"


def patched():
    kept = json.loads, json.dumps
    json.loads = json.dumps = None
    threading.Timer(0.05, lambda: vars(json).update(loads=kept[0], dumps=kept[1])).start()
    return "patched"


def silenced():
    stream, sys.stderr = sys.stderr, None
    threading.Timer(0.05, lambda: vars(sys).update(stderr=stream)).start()
    raise ValueError("said nothing")


def leaveWithWords():
    sys.exit("enough")


async def leaveBehind():
    async def leave():
        sys.exit(5)

    leaving = asyncio.create_task(leave())
    await asyncio.wait([leaving])
    return "stayed"


async def stopLoop():
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.02)
    return "went on"
