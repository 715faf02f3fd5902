"""Work that comes again and again, also after a turn that broke."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from ploinky.recurring import recurring


def _raise() -> None:
    raise RuntimeError("the disk is on fire")


async def _raise_later() -> None:
    _raise()


@pytest.mark.parametrize("broken", [_raise, _raise_later])
def test_a_turn_that_breaks_is_not_the_last(broken: Callable[[], Any]) -> None:
    """It is logged with what it was and why, and the next one comes at its time."""
    clock = Clock()
    turns = [broken, broken, lambda: done.append(clock.seconds())]
    done: list[float] = []
    loop = recurring(clock, "looking after it", lambda: turns.pop(0)())
    with capturedLogs() as logged:
        ended = loop.start(1.0, now=False)
        for _ in range(3):
            clock.advance(1.0)
    assert done == [3.0]
    assert [event["what"] for event in logged] == ["looking after it"] * 2
    assert all("on fire" in event["log_failure"].getTraceback() for event in logged)
    loop.stop()
    assert ended.called


def test_what_is_cancelled_at_the_end_is_no_failure() -> None:
    """And the end waits for a turn in hand."""
    clock = Clock()
    turn: Deferred[None] = Deferred()
    loop = recurring(clock, "waiting", lambda: turn)
    ended = loop.start(1.0)
    loop.stop()
    assert not ended.called
    with capturedLogs() as logged:
        turn.cancel()
    assert ended.called
    assert logged == []
