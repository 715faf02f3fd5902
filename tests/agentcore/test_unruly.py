"""Handlers in Node and Python that lay hands on what the engine itself uses.

Each is answered at once, and what is called next as well: nobody waits for a deadline, and no
other task suffers.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.agentcore.running import Agent, Client

DEADLINE_SECONDS = 10.0
"""A task that is answered by its deadline alone is none that this file lets pass."""


@pytest.fixture(params=["node", "python"])
def unruly(request: pytest.FixtureRequest, running: Callable[[str, str], Agent]) -> Client:
    """A client of the agent that does what it should not."""
    return running(request.param, "unruly").client("http")


def called(client: Client, command: str) -> tuple[int, str | None, object]:
    """Call a command and then one that is well; give status, code, and message or result."""
    answer = client.call(command, timeout=DEADLINE_SECONDS)
    assert client.call("give", 1).body == 1
    if answer.status == 200:
        return 200, None, answer.body
    assert answer.code != "TASK_TIMEOUT"
    return answer.status, answer.code, answer.message


@pytest.mark.parametrize("command", ["unreadableStatus", "unreadableMessage", "unreadableLater"])
def test_an_error_that_cannot_be_read_is_one(unruly: Client, command: str) -> None:
    """Its text or its attributes raise; what began in the same moment is not lost with it."""
    beside = [unruly.begin("give", number) for number in range(3)]
    status, code, message = called(unruly, command)
    assert (status, code) == (500, "HANDLER_FAILED")
    assert str(message).startswith(command)
    assert str(message).endswith("that cannot be read.")
    assert [one.answer().body for one in beside] == [0, 1, 2]


def test_what_an_error_has_that_is_no_json_is_left_out(
    running: Callable[[str, str], Agent],
) -> None:
    """Its message is told all the same."""
    node = running("node", "unruly").client("http")
    assert called(node, "unreadableStack") == (500, "HANDLER_FAILED", "with an odd stack")
    python = running("python", "unruly").client("http")
    assert called(python, "unreadableDetails") == (500, "HANDLER_FAILED", "with deep details")


def test_a_result_that_cannot_be_looked_at_fails(unruly: Client) -> None:
    """With the reason that it gave."""
    status, code, message = called(unruly, "unreadableResult")
    assert (status, code) == (500, "HANDLER_FAILED")
    assert str(message).endswith("not today")


def test_what_is_logged_fails_no_task(unruly: Client) -> None:
    """A number that JSON does not have, something that contains itself: both are told in words."""
    assert called(unruly, "log") == (200, None, "logged")
    assert "18446744073709551616" in unruly.agent.logged('"odd fields"')


def test_the_engine_does_not_use_what_was_put_in_place_of_json(unruly: Client) -> None:
    """Libraries do that, to have their own types written."""
    assert called(unruly, "patched") == (200, None, "patched")


def test_an_iterator_that_gives_no_steps_ends(running: Callable[[str, str], Agent]) -> None:
    """As `for await` would end it; else it would give nulls for ever."""
    node = running("node", "unruly").client("http")
    status, _, message = called(node, "endless")
    assert (status, message) == (500, "The iterator gave 5, not {done, value}.")


def test_the_port_of_the_thread_is_the_handlers_own(
    running: Callable[[str, str], Agent],
) -> None:
    """Modules that find themselves in a worker thread speak to whoever began it."""
    node = running("node", "unruly").client("http")
    assert called(node, "speaks") == (200, None, "spoke")


def test_a_module_that_throws_nothing_says_so(running: Callable[[str, str], Agent]) -> None:
    """There is nothing else to say."""
    node = running("node", "unruly").client("http")
    assert called(node, "void") == (500, "HANDLER_FAILED", "null")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("silenced", (500, "HANDLER_FAILED", "said nothing")),
        ("leaveWithWords", (500, "HANDLER_FAILED", "The handler called sys.exit(enough).")),
        ("leaveBehind", (200, None, "stayed")),
        ("stopLoop", (200, None, "went on")),
    ],
)
def test_python_goes_on_without_what_a_handler_took_away(
    running: Callable[[str, str], Agent], command: str, expected: tuple[int, str | None, object]
) -> None:
    """Standard error, the event loop of all async handlers."""
    assert called(running("python", "unruly").client("http"), command) == expected
