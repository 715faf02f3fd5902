"""What anyone may rely on who is given a way to send tasks to an agent.

Subclass `AgentTransportContract` in a test module, with a fixture ``agent`` that gives a
`ConnectedAgent`.  Its agent has these commands:

* ``echo(*params)`` gives its params as a list;
* ``whoami()`` gives ``{"user", "taskId", "requestId", "command"}`` from its context;
* ``text(n)`` gives a string of ``n`` letters x;
* ``fail()`` throws an error with message ``short and stout``, status 418, code ``TEAPOT`` and
  details ``{"spout": 1}``;
* ``count(n)`` streams the numbers from 0 to ``n`` - 1;
* ``hang()`` waits until it is aborted;
* ``begun(task)`` and ``aborted(task)`` tell whether the ``hang`` with this task id has begun, and
  whether it was aborted.
"""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import time
from typing import Any

import pytest_twisted
from attrs import frozen
from zope.interface.verify import verifyObject

from ploinky.errors import AgentUnreachable
from ploinky.interfaces import IAgentTransport, IExchange
from ploinky.testing.tasks import HeldLease, RecordedAnswer, a_call
from ploinky.values import Target

PATIENCE_SECONDS = 10.0
"""Until something that must happen is called missing."""


@frozen
class ConnectedAgent:
    """A transport and where to send.

    Attributes:
        target: The agent with the contract's commands.
        absent: One that nobody serves.
    """

    transport: IAgentTransport
    target: Target
    absent: Target

    def begin(self, command: str, *params: Any, **given: Any) -> tuple[IExchange, RecordedAnswer]:
        """Send a task and give its exchange and answer."""
        answer = RecordedAnswer()
        call = a_call(command, *params, **given)
        return self.transport.send(HeldLease(self.target), call, answer), answer

    async def call(self, command: str, *params: Any, **given: Any) -> RecordedAnswer:
        """Send a task and wait for the whole answer."""
        return await self.begin(command, *params, **given)[1].whole

    async def until(self, command: str, task: str) -> None:
        """Ask until the agent says so of a task."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not (await self.call(command, task)).json():
            assert time.monotonic() < give_up_at, f"the task was not {command}"


class AgentTransportContract:
    """`IAgentTransport`, from the caller's side."""

    @pytest_twisted.ensureDeferred
    async def test_it_is_what_it_says(self, agent: ConnectedAgent) -> None:
        """Exchange and transport have every method of their interfaces."""
        exchange, answer = agent.begin("echo")
        assert verifyObject(IAgentTransport, agent.transport)
        assert verifyObject(IExchange, exchange)
        await answer.whole

    @pytest_twisted.ensureDeferred
    async def test_a_result_comes_as_the_handler_gave_it(self, agent: ConnectedAgent) -> None:
        """Params of every JSON kind arrive as sent, and the result is 200 and JSON."""
        params = ["a", 1, -2.5, None, True, {"ä": ["\u2028", "\n", '"', "\\"]}, []]
        answer = await agent.call("echo", *params)
        assert answer.json() == params
        assert answer.status == 200
        assert (answer.field(b"content-type") or b"").startswith(b"application/json")
        assert answer.field(b"x-ploinky-command") == b"echo"

    @pytest_twisted.ensureDeferred
    async def test_the_agent_is_told_who_calls(self, agent: ConnectedAgent) -> None:
        """User, task, command and request id reach the handler, whatever characters they hold."""
        answer = await agent.call("whoami", user='Zoë "50%"', request_id="r-42")
        told = answer.json()
        assert told["user"] == 'Zoë "50%"'
        assert told["requestId"] == "r-42"
        assert told["command"] == "whoami"
        assert told["taskId"]

    @pytest_twisted.ensureDeferred
    async def test_a_name_cannot_bring_fields_of_its_own(self, agent: ConnectedAgent) -> None:
        """A line end in a user's name stays a part of the name."""
        user = "mallory\r\nX-Ploinky-User: Admin\r\n\r\n"
        assert (await agent.call("whoami", user=user)).json()["user"] == user

    @pytest_twisted.ensureDeferred
    async def test_only_the_command_is_shown_of_internal_fields(
        self, agent: ConnectedAgent
    ) -> None:
        """What server and agent say to one another stays between them."""
        for answer in [await agent.call("echo"), await agent.call("fail")]:
            names = {name.lower() for name, _ in answer.fields}
            internal = {name for name in names if name.startswith(b"x-ploinky-")}
            assert internal <= {b"x-ploinky-command"}

    @pytest_twisted.ensureDeferred
    async def test_an_error_keeps_its_status_code_and_details(self, agent: ConnectedAgent) -> None:
        """A handler's error is an answer, not a failure of the transport."""
        answer = await agent.call("fail", request_id="r-43")
        assert answer.status == 418
        assert answer.json() == {
            "error": True,
            "code": "TEAPOT",
            "message": "short and stout",
            "details": {"spout": 1},
            "requestId": "r-43",
        }

    @pytest_twisted.ensureDeferred
    async def test_an_unknown_command_is_404(self, agent: ConnectedAgent) -> None:
        """The caller learns that it is the command which does not exist."""
        answer = await agent.call("nosuch")
        assert answer.status == 404
        assert answer.json()["code"] == "UNKNOWN_COMMAND"

    @pytest_twisted.ensureDeferred
    async def test_a_large_result_comes_whole(self, agent: ConnectedAgent) -> None:
        """Three megabytes lose nothing on the way."""
        answer = await agent.call("text", 3_000_000)
        assert answer.json() == "x" * 3_000_000

    @pytest_twisted.ensureDeferred
    async def test_large_params_arrive_whole(self, agent: ConnectedAgent) -> None:
        """A megabyte of params, neither."""
        assert (await agent.call("echo", "y" * 1_000_000)).json() == ["y" * 1_000_000]

    @pytest_twisted.ensureDeferred
    async def test_calls_at_once_get_their_own_answers(self, agent: ConnectedAgent) -> None:
        """Forty calls in flight are never mixed up."""
        begun = [agent.begin("echo", number)[1] for number in range(40)]
        for number, answer in enumerate(begun):
            assert (await answer.whole).json() == [number]

    @pytest_twisted.ensureDeferred
    async def test_items_are_an_array(self, agent: ConnectedAgent) -> None:
        """A streaming handler's, for a caller that does not read events."""
        answer = await agent.call("count", 3)
        assert answer.json() == [0, 1, 2]
        assert (answer.field(b"content-type") or b"").startswith(b"application/json")
        assert (await agent.call("count", 0)).json() == []

    @pytest_twisted.ensureDeferred
    async def test_every_result_can_be_events(self, agent: ConnectedAgent) -> None:
        """Whatever the wire: one event an item, or one for all, then the end."""
        answer = await agent.call("count", 2, to_events=True)
        assert answer.status == 200
        assert answer.field(b"content-type") == b"text/event-stream"
        end = b"event: end\ndata: null\n\n"
        assert answer.body in (b"data: 0\n\ndata: 1\n\n" + end, b"data: [0,1]\n\n" + end)
        answer = await agent.call("echo", "a\nb", to_events=True)
        assert answer.body == b'data: ["a\\nb"]\n\n' + end

    @pytest_twisted.ensureDeferred
    async def test_an_error_is_no_event(self, agent: ConnectedAgent) -> None:
        """One that comes before anything else has its status and is JSON."""
        answer = await agent.call("fail", to_events=True)
        assert (answer.status, answer.json()["code"]) == (418, "TEAPOT")

    @pytest_twisted.ensureDeferred
    async def test_cancelling_aborts_the_task_inside(self, agent: ConnectedAgent) -> None:
        """A client that left costs the agent nothing more, and its answer hears nothing more."""
        answer = RecordedAnswer()
        call = a_call("hang")
        exchange = agent.transport.send(HeldLease(agent.target), call, answer)
        await agent.until("begun", call.task)
        exchange.cancel()
        await agent.until("aborted", call.task)
        exchange.cancel()
        assert answer.status is None
        assert not answer.whole.called

    @pytest_twisted.ensureDeferred
    async def test_a_task_ends_at_its_deadline(self, agent: ConnectedAgent) -> None:
        """The agent itself gives up a task that runs too long, even if nobody cancels it."""
        deadline_ms = int(time.time() * 1000) + 300
        answer = await agent.call("hang", deadline_ms=deadline_ms)
        assert answer.status == 504
        assert answer.json()["code"] == "TASK_TIMEOUT"

    @pytest_twisted.ensureDeferred
    async def test_an_agent_that_is_not_there_is_unreachable(self, agent: ConnectedAgent) -> None:
        """The failure comes through the answer, and soon."""
        answer = RecordedAnswer()
        agent.transport.send(HeldLease(agent.absent), a_call("echo"), answer)
        await answer.whole
        assert isinstance(answer.error, AgentUnreachable)
        assert answer.error.got_nothing
