"""Work that cannot be cancelled is waited for."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from ploinky.runtime.waiting import Shielded, uncut


async def work(until: Deferred[Any]) -> Any:
    return await until


def failure(deferred: Deferred[Any]) -> BaseException:
    caught: list[Any] = []
    deferred.addErrback(caught.append)
    assert caught, "it has not failed"
    raised: BaseException = caught[0].value
    return raised


def test_its_result_comes_back() -> None:
    """Or what it raised."""
    until: Deferred[str] = Deferred()
    waiting = Deferred.fromCoroutine(uncut(work(until)))
    until.callback("done")
    assert waiting.result == "done"
    broken: Deferred[str] = Deferred()
    waiting = Deferred.fromCoroutine(uncut(work(broken)))
    broken.errback(ValueError("no"))
    assert isinstance(failure(waiting), ValueError)


@pytest.mark.parametrize("times", [1, 3])
def test_a_cancelled_wait_ends_with_the_work(times: int) -> None:
    """However often it is cancelled; only then can its work be undone."""
    until: Deferred[str] = Deferred()
    waiting = Deferred.fromCoroutine(uncut(work(until)))
    failures: list[Any] = []
    waiting.addErrback(failures.append)
    for _ in range(times):
        waiting.cancel()
    assert failures == []
    until.callback("made")
    assert [type(each.value) for each in failures] == [CancelledError]


def test_a_wait_can_be_given_up_while_the_work_goes_on() -> None:
    """And it can be waited for again."""
    until: Deferred[str] = Deferred()
    shielded = Shielded(work(until))
    waiting = Deferred.fromCoroutine(shielded.result())
    waiting.cancel()
    assert isinstance(failure(waiting), CancelledError)
    ended = Deferred.fromCoroutine(shielded.ended())
    assert not ended.called
    until.callback("made")
    assert ended.called
    assert Deferred.fromCoroutine(shielded.result()).result == "made"
