"""A test that waits for ever fails, and says where it waits (pytest-timeout).

That raises from a signal.  Where the test waits for the reactor, the signal comes to the
reactor's greenlet, and Twisted logs what is raised there and goes on: so it is thrown into the
greenlet that waits.
"""

from __future__ import annotations

import gc
import inspect
import signal
import types
from collections.abc import Iterator
from types import FrameType
from typing import Any

import greenlet
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item) -> Iterator[None]:
    """Let the time-out reach the test, wherever the signal comes to."""
    is_set = yield
    raises: Any = signal.getsignal(signal.SIGALRM)
    waiting = greenlet.getcurrent()

    def time_is_up(number: int, frame: FrameType | None) -> None:
        try:
            raises(number, frame)
        except pytest.fail.Exception as error:
            if greenlet.getcurrent() is waiting or runs(item, frame):
                raise
            error.msg = "\n  ".join([str(error.msg), *waits_at(item)])
            forget(waiting)
            waiting.throw(error)

    if callable(raises):
        signal.signal(signal.SIGALRM, time_is_up)
    return is_set


def forget(waiting: greenlet.greenlet) -> None:
    """Let what this test has waited for not come to a later one, which waits in the same greenlet."""
    awaited = waiting.gr_frame.f_locals.get("d") if waiting.gr_frame else None
    if isinstance(awaited, Deferred):  # that of ``pytest_twisted.blockon``
        awaited.pause()


def runs(item: pytest.Item, frame: FrameType | None) -> bool:
    """Tell whether the reactor is within a test, which then gets what is raised."""
    while frame is not None:
        if frame.f_code.co_filename in (str(item.path), pytest_twisted.__file__):
            return True
        frame = frame.f_back
    return False


def waits_at(item: pytest.Item) -> Iterator[str]:
    """Give the places in which a test's coroutine waits, the outermost first."""
    for found in gc.get_objects():
        if inspect.iscoroutine(found) and found.cr_code.co_filename == str(item.path):
            awaited: Any = (
                found if found.cr_code.co_name == getattr(item, "originalname", None) else None
            )
            while isinstance(awaited, types.CoroutineType) and awaited.cr_frame is not None:
                code = awaited.cr_code
                yield f"{code.co_filename}:{awaited.cr_frame.f_lineno}, in {code.co_name}"
                awaited = awaited.cr_await
