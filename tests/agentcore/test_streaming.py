"""Handlers that give one item after the other, on every engine and wire that run them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agentcore.running import (
    DEADLINE_SECONDS,
    Agent,
    Client,
    CutOff,
    FrameCall,
    HttpCall,
    wait_for,
    wait_for_text,
)

END = ("end", None)


@pytest.fixture(params=["node-http", "node-frames", "python-http", "python-frames"])
def streamed(request: pytest.FixtureRequest, running: Callable[[str, str], Agent]) -> Client:
    """A client on the wires that pass items on as they come."""
    engine, wire = request.param.split("-")
    return running(engine, "everything").client(wire)


@pytest.fixture(params=["node", "python"])
def frames(request: pytest.FixtureRequest, running: Callable[[str, str], Agent]) -> Client:
    """A client that sends frames."""
    return running(request.param, "everything").client("frames")


@pytest.mark.parametrize(
    ("command", "params"), [("counted", [3]), ("countedLater", [3, 5]), ("counted", [20000])]
)
def test_items_are_an_array(inner: Client, command: str, params: list[int]) -> None:
    """For a plain call, on every wire, from plain and asynchronous iterators."""
    answer = inner.call(command, *params)
    assert (answer.status, answer.body) == (200, [{"i": i} for i in range(params[0])])


def test_no_items_are_an_empty_array(inner: Client) -> None:
    """And that is JSON, too."""
    assert inner.call("counted", 0).body == []


def test_items_are_events(streamed: Client) -> None:
    """For a caller that reads them, with one that says that they were all."""
    answer = streamed.call("counted", 3, to_events=True)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.body == [("message", {"i": i}) for i in range(3)] + [END]


def test_no_items_are_the_end_alone(streamed: Client) -> None:
    """So a caller need not guess."""
    assert streamed.call("counted", 0, to_events=True).body == [END]


@pytest.mark.parametrize(
    ("command", "body"), [("hello", {"message": "Hello World"}), ("say", "World")]
)
def test_one_result_is_one_event(streamed: Client, command: str, body: object) -> None:
    """A handler that does not stream, and a script, can be subscribed to all the same."""
    answer = streamed.call(command, "World", to_events=True)
    assert answer.body == [("message", body), END]


@pytest.mark.parametrize("to_events", [False, True])
def test_error_before_the_first_item_is_an_error(streamed: Client, to_events: bool) -> None:
    """With status and code, as if the handler did not stream."""
    answer = streamed.call("atOnce", to_events=to_events)
    assert (answer.status, answer.code) == (409, "NONE")
    assert streamed.call("nosuch", to_events=to_events).code == "UNKNOWN_COMMAND"


@pytest.mark.parametrize("command", ["halfway", "strangely"])
def test_error_amid_an_array_cuts_it_off(streamed: Client, command: str) -> None:
    """Nobody takes half of it for all."""
    with pytest.raises(CutOff):
        streamed.call(command, 20)


def test_error_amid_items_is_an_error_where_they_are_collected(
    running: Callable[[str, str], Agent],
) -> None:
    """Over files nothing has been said yet."""
    for engine in ("node", "python"):
        assert running(engine, "everything").client("file").call("halfway", 1).code == "HALF"


def test_error_amid_events_is_the_last_one(streamed: Client) -> None:
    """With the error's JSON; what ended so does not also end well."""
    first, error = streamed.call("halfway", 5, to_events=True, request_id="r-7").body
    assert first == ("message", 1)
    assert error[0] == "error"
    assert (error[1]["code"], error[1]["requestId"]) == ("HALF", "r-7")


@pytest.mark.parametrize("to_events", [False, True])
def test_handler_hears_that_nobody_reads_on(streamed: Client, mark: Path, to_events: bool) -> None:
    """Its signal fires and its iterator is ended."""
    call = streamed.begin("ticking", str(mark), to_events=to_events)
    assert isinstance(call, (HttpCall, FrameCall))
    call.until_begun()
    call.cancel()
    wait_for(mark.with_suffix(".told"))
    wait_for(mark.with_suffix(".ended"))
    assert streamed.agent.get("/health").body["inflight"] == 0


def test_deadline_is_that_of_the_first_event(streamed: Client, mark: Path) -> None:
    """What has begun goes on for as long as it likes."""
    # The first comes long before the deadline, the last after it.
    apart_ms = DEADLINE_SECONDS * 100
    events = streamed.call(
        "countedLater", 12, apart_ms, timeout=DEADLINE_SECONDS, to_events=True
    ).body
    assert len(events) == 13
    assert (
        streamed.call("countedLater", 1, 5000, timeout=0.2, to_events=True).code == "TASK_TIMEOUT"
    )


def test_deadline_of_an_array_is_that_of_the_whole(streamed: Client, mark: Path) -> None:
    """It is cut off, and its iterator ended."""
    with pytest.raises(CutOff):
        streamed.call("ticking", str(mark), timeout=DEADLINE_SECONDS)
    wait_for(mark.with_suffix(".ended"))


def test_slow_reader_slows_the_iterator(streamed: Client, mark: Path) -> None:
    """Of a hundred megabytes, little more is made than is read."""
    call = streamed.begin("wide", str(mark), 1000, 100_000)
    assert isinstance(call, (HttpCall, FrameCall))
    call.until_begun()
    # Another call gets through meanwhile, more than once.
    for _ in range(3):
        assert streamed.call("hello", "World").status == 200
    call.cancel()
    assert int(wait_for_text(mark.with_suffix(".made"))) < 50


def test_large_stream_comes_whole(streamed: Client, mark: Path) -> None:
    """Once it is read."""
    body = streamed.call("wide", str(mark), 60, 50_000).body
    assert body == ["x" * 50_000] * 60


@pytest.mark.parametrize("engine", ["node", "python"])
def test_collected_items_have_a_limit(
    running: Callable[[str, str], Agent], mark: Path, engine: str
) -> None:
    """Over files they are one result, and the handler is told."""
    answer = running(engine, "everything").client("file").call("wide", str(mark), 1000, 10_000)
    assert (answer.status, answer.code) == (500, "HANDLER_FAILED")
    assert "more than 1000000 bytes" in answer.message
    wait_for(mark.with_suffix(".made"))


def test_silence_is_filled_with_comments(running: Callable[[str, str], Agent]) -> None:
    """So that nobody on the way takes a subscription for dead: one every 15 seconds."""
    calls = []
    for engine in ("node", "python"):
        call = (
            running(engine, "everything").client("frames").begin("halfway", 60_000, to_events=True)
        )
        assert isinstance(call, FrameCall)
        call.until_begun()
        assert call.receive()[2] == b"data: 1\n\n"
        calls.append(call)
    for call in calls:
        assert call.receive()[2] == b":\n\n"
        call.cancel()


# --- frames alone ----------------------------------------------------------------


def test_no_more_is_sent_than_was_allowed(frames: Client, mark: Path) -> None:
    """Not a byte, until there is credit."""
    call = frames.begin("wide", str(mark), 1000, 100_000)
    assert isinstance(call, FrameCall)
    got = 0
    while got < FrameCall.WINDOW:
        kind, _, payload = call.receive()
        got += len(payload) if kind == 20 else 0
    assert got == FrameCall.WINDOW
    call.send(3, struct.pack(">I", 10))
    kind, _, payload = call.receive()
    assert (kind, payload) == (20, b"x" * 10)
    call.cancel()


@pytest.mark.parametrize(
    "params", [b"", b"garbage", b"{", b"5", b'"x"', b"null", b"[NaN]", b'["\xff"]', b"[] []"]
)
@pytest.mark.parametrize("command", ["give", "say"])
def test_params_that_are_none_are_refused(frames: Client, command: str, params: bytes) -> None:
    """Whatever got past the server; by handlers and by scripts."""
    answer = frames.raw_frame(command, params).answer()
    assert (answer.status, answer.code) == (400, "BAD_JSON")


@pytest.mark.parametrize(
    "bad",
    [
        b"ploinky-frames/1\n" + struct.pack(">IIB", 65537, 1, 1),
        b"ploinky-frames/1\n" + struct.pack(">IIB", 3, 1, 1) + b"abc",
        b"ploinky-frames/1\n" + struct.pack(">IIB", 12, 1, 1) + b"\0" * 9 + b"a\nb",
        b"ploinky-frames/1\n" + struct.pack(">IIB", 1, 1, 3) + b"a",
        b"ploinky-frames/1\n" + struct.pack(">IIB", 0, 1, 17),
    ],
)
def test_what_breaks_the_protocol_loses_its_connection(frames: Client, bad: bytes) -> None:
    """And nothing else: others are answered."""
    held = frames.begin("countedLater", 3, 50)
    with frames.agent.connect() as connection:
        connection.sendall(bad)
        while connection.recv(65536):
            pass
    assert held.answer().status == 200


def test_lost_connection_aborts_its_tasks(frames: Client, mark: Path) -> None:
    """As it does over HTTP."""
    call = frames.begin("begin", str(mark))
    assert isinstance(call, FrameCall)
    wait_for(mark.with_suffix(".begun"))
    call.close()
    wait_for(mark.with_suffix(".told"))


def test_told_to_stop_it_says_so(make: Callable[..., Agent], mark: Path) -> None:
    """A server that hears GOAWAY opens nothing more there; what it has is finished."""
    for engine in ("node", "python"):
        agent = make(engine, "everything").start()
        held = mark.with_name(engine)
        held.touch()
        call = agent.client("frames").begin("hold", str(held))
        assert isinstance(call, FrameCall)
        wait_for(held.with_suffix(".begun"))
        agent.tell_to_stop()
        assert call.receive()[:2] == (23, 0)
        held.unlink()
        assert call.answer().body == "released"
        assert agent.wait() == 0
