"""Uploads: files on their way to an agent, whole or not at all, and gone when its task is over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor

from ploinky.errors import AgentBroken, InsufficientStorage, UploadFailed
from ploinky.routing.spool import Batch, Spool
from ploinky.routing.uploads import Reception, UploadForm
from ploinky.testing.deployment import DirectBlocking
from ploinky.testing.routing import Answered, FakeExchange, settled
from ploinky.values import Address, CallAuth, Kind, Principal, Role, Target, TaskCall

JSON = ((b"Content-Type", b"application/json"),)


def part(
    name: str, content: bytes, filename: str | None = None, kind: str = "", boundary: str = "b-o"
) -> bytes:
    """One part of a body."""
    lines = [f"--{boundary}", f'Content-Disposition: form-data; name="{name}"']
    if filename is not None:
        lines[1] += f'; filename="{filename}"'
    if kind:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, "", ""]).encode() + content + b"\r\n"


END = b"--b-o--\r\n"


class Agent:
    """An instance that takes uploads: its queue, and what it saw of each."""

    def __init__(self, queue: Path, corridor: Any) -> None:
        self.queue = queue
        (queue / "uploads").mkdir(parents=True)
        self.corridor = corridor
        self.seen: list[dict[str, Any]] = []
        self.content: list[list[bytes]] = []
        corridor.tasks.respond = self.run

    def target(self) -> Target:
        return Target("one", Address(), queue_directory=str(self.queue), inner_queue="/inside")

    def run(self, task: TaskCall, exchange: FakeExchange) -> None:
        """Read the files, and answer."""
        (params,) = json.loads(task.params)
        self.seen.append(params)
        outside = [
            str(file["path"]).replace("/inside", str(self.queue)) for file in params["files"]
        ]
        self.content.append([Path(path).read_bytes() for path in outside])
        exchange.say(b'"done"', 200, JSON)

    def left(self) -> list[str]:
        """All that lies in its directory and in the spool."""
        run = self.corridor.run_directory
        places = (self.queue / "uploads", run / "uploads/w1")
        return [str(found) for place in places for found in place.rglob("*")]


@pytest.fixture
def agent(corridor: Any, make_route: Any, tmp_path: Path) -> Agent:
    """An agent at `/demo`."""
    agent = Agent(corridor.run_directory / "i/one", corridor)
    corridor.publish(
        make_route(
            "localhost/demo",
            targets=(agent.target(),),
            max_upload_bytes=1024 * 1024,
            max_body_bytes=1000,
        )
    )
    return agent


@pytest.fixture
def upload(corridor: Any, agent: Agent) -> Callable[..., Any]:
    """Upload a body, whole."""

    async def do(body: bytes, path: str = "/demo/upload", kind: str = "") -> Answered:
        kind = kind or "multipart/form-data; boundary=b-o"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return await corridor.ask(head.encode() + body)

    return do


@pytest_twisted.ensureDeferred
async def test_an_agent_gets_files_and_what_was_said_of_them(upload: Any, agent: Agent) -> None:
    body = part("file", b"a,b\n", "table.csv", "text/csv") + part("metadata", b'{"year": 2024}')
    answer = await upload(body + END)
    assert (answer.status, answer.body) == (200, b'"done"')
    (seen,) = agent.seen
    assert seen["path"].startswith("/inside/uploads/w1-")
    assert {name: seen[name] for name in ("name", "size", "type", "metadata")} == {
        "name": "table.csv",
        "size": 4,
        "type": "text/csv",
        "metadata": {"year": 2024},
    }
    assert agent.content == [[b"a,b\n"]]
    assert agent.left() == []


@pytest_twisted.ensureDeferred
async def test_several_files_in_order(upload: Any, agent: Agent) -> None:
    body = part("file", b"1", "one") + part("metadata", b"text") + part("file", b"22", "../../two")
    assert (await upload(body + END)).status == 200
    (seen,) = agent.seen
    assert [(file["name"], file["size"]) for file in seen["files"]] == [
        ("one", 1),
        ("../../two", 2),
    ]
    assert [file["path"].rpartition("/")[2] for file in seen["files"]] == ["file-1", "file-2"]
    assert (seen["path"], seen["metadata"]) == (seen["files"][0]["path"], "text")
    assert agent.content == [[b"1", b"22"]]


@pytest_twisted.ensureDeferred
async def test_a_large_file_comes_in_pieces_and_is_never_held(corridor: Any, agent: Agent) -> None:
    """Byte by byte around the boundaries, over the limit of ordinary bodies, chunked."""
    content = os.urandom(200_000).replace(b"\r\n--", b"....") + b"\r\n--b-"
    body = part("file", content, "big") + END
    client = await corridor.connect()
    client.send(
        b"POST /demo/upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: multipart/form-data; boundary=b-o\r\n\r\n"
    )
    await settled(reactor, corridor.factory.in_hand)
    (connection,) = corridor.factory.connections
    for piece in (body[:90], body[90:120_000], body[120_000:-5], body[-5:-2], body[-2:]):
        chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
        enough = connection._call.bytes_in + len(chunk)
        client.send(chunk)
        await settled(reactor, lambda: connection._call.bytes_in == enough)  # noqa: B023
    assert corridor.orchestrator.leases == []
    client.send(b"0\r\n\r\n")
    assert (await client.answer()).status == 200
    assert agent.content == [[content]]
    assert agent.left() == []


@pytest_twisted.ensureDeferred
async def test_no_place_is_taken_while_the_client_sends(corridor: Any, agent: Agent) -> None:
    """A slow client keeps nobody from the agent, and a new release does not wait for it."""
    body = part("file", b"x" * 1000, "a") + END
    client = await corridor.connect()
    head = b"POST /demo/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
    head += b"Content-Type: multipart/form-data; boundary=b-o\r\n\r\n"
    client.send(head + body[:500])
    await settled(reactor, agent.left)
    assert corridor.orchestrator.leases == []
    client.send(body[500:])
    assert (await client.answer()).status == 200
    assert len(corridor.orchestrator.leases) == 1


@pytest_twisted.ensureDeferred
async def test_an_upload_goes_to_the_release_that_serves_when_it_is_whole(
    corridor: Any, agent: Agent, make_route: Any
) -> None:
    """A deploy in the middle of a long upload: the instances that it began with are gone."""
    body = part("file", b"x" * 1000, "a") + END
    client = await corridor.connect()
    head = b"POST /demo/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
    head += b"Content-Type: multipart/form-data; boundary=b-o\r\n\r\n"
    for number, kind in ((2, Kind.TASK), (3, Kind.SERVICE)):
        client.send(head + body[:500])
        await settled(reactor, agent.left)
        target = attrs.evolve(agent.target(), instance=f"release-{number}")
        corridor.publish(make_route("localhost/demo", kind, targets=(target,)))
        client.send(body[500:])
        assert (await client.answer()).status == (200 if kind is Kind.TASK else 404)
        assert agent.left() == []
        corridor.publish(make_route("localhost/demo", targets=(agent.target(),)))
    assert [lease.target.instance for lease in corridor.orchestrator.leases] == ["release-2"]


@pytest_twisted.ensureDeferred
async def test_an_upload_that_outlasts_its_key_is_refused(
    corridor: Any, agent: Agent, make_route: Any
) -> None:
    """Its files go, and the agent never hears of it."""
    closed = make_route("localhost/demo", targets=(agent.target(),), auth=CallAuth.KEY)
    key = Principal("ci", Role.CALLER, sha256(b"pk_1").hexdigest())
    corridor.publish(closed, principals=(key,))
    body = part("file", b"x" * 1000, "a") + END
    client = await corridor.connect()
    head = b"POST /demo/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
    head += b"X-API-Key: pk_1\r\nContent-Type: multipart/form-data; boundary=b-o\r\n\r\n"
    client.send(head + body[:500])
    await settled(reactor, agent.left)
    corridor.publish(closed)
    client.send(body[500:])
    assert (await client.answer()).status == 401
    assert agent.left() == []
    assert corridor.orchestrator.leases == []


@pytest_twisted.ensureDeferred
async def test_a_full_agent_is_waited_for_with_the_files_in_hand(
    corridor: Any, agent: Agent
) -> None:
    corridor.orchestrator.full = True
    body = part("file", b"x", "a") + END
    client = await corridor.connect()
    client.send(
        b"POST /demo/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
        b"Content-Type: multipart/form-data; boundary=b-o\r\n\r\n" % len(body) + body
    )
    await settled(reactor, lambda: corridor.orchestrator.waiting)
    corridor.orchestrator.grant()
    assert (await client.answer()).status == 200
    assert agent.left() == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b"", "", 400, b"multipart"),
        (b"x", "", 400, b"multipart"),
        (END, "", 400, b"has no file"),
        (part("metadata", b"x") + END, "", 400, b"has no file"),
        (part("file", b"x", "a"), "", 400, b"multipart"),
        (
            part("file", b"x", "a").replace(b'"a"', b'"\xfc"') + END,
            "",
            400,
            b'multipart/form-data: Segment header failed to decode","details"',
        ),
        (part("other", b"x", "a") + END, "", 400, b"'other'"),
        (part("metadata", b"x") * 2 + END, "", 400, b"more than one"),
        (part("file", b"x") * 101 + END, "", 400, b"100"),
        (part("metadata", b"x" * 65537) + END, "", 400, b"65536"),
        (part("file", b"x", "a") + part("metadata", b"\xff") + END, "", 400, b"UTF-8"),
        (
            part("file", b"x", "a") + part("metadata", b"{", kind="application/json") + END,
            "",
            400,
            b"BAD_JSON",
        ),
        (part("file", b"x", "a") + END, "multipart/form-data", 400, b"boundary"),
        (part("file", b"x" * 1024 * 1024, "a") + END, "", 413, b"BODY_TOO_LARGE"),
    ],
)
async def test_what_is_no_upload_says_why_and_leaves_nothing(
    upload: Any, agent: Agent, corridor: Any, body: bytes, kind: str, status: int, said: bytes
) -> None:
    answer = await upload(body, kind=kind)
    assert answer.status == status, answer.body
    assert said in answer.body
    assert agent.seen == []
    assert agent.left() == []
    assert corridor.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_json_is_an_ordinary_call_of_the_same_command(corridor: Any, agent: Agent) -> None:
    corridor.tasks.respond = lambda task, exchange: exchange.say(task.params, 200, JSON)
    answer = await corridor.ask(
        b"POST /demo/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
        b"Content-Type: application/json\r\n\r\n[1]"
    )
    assert (answer.status, answer.body) == (200, b"[1]")


@pytest_twisted.ensureDeferred
async def test_files_go_however_the_task_ends(upload: Any, agent: Agent, corridor: Any) -> None:
    """With an error, a broken agent, a time-out, or a client that leaves."""
    body = part("file", b"x", "a") + END
    corridor.tasks.respond = lambda task, exchange: exchange.say(b"{}", 500, JSON)
    assert (await upload(body)).status == 500
    assert agent.left() == []
    corridor.tasks.respond = lambda task, exchange: exchange.answer.failed(AgentBroken("no"))
    assert (await upload(body)).status == 502
    assert agent.left() == []

    corridor.tasks.respond = None
    for end in (
        lambda client: client.transport.abortConnection(),
        lambda _: corridor.clock.advance(31),
    ):
        client = await corridor.connect()
        client.send(
            b"POST /demo/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
            b"Content-Type: multipart/form-data; boundary=b-o\r\n\r\n" % len(body) + body
        )
        sent = len(corridor.tasks.sent)
        await settled(reactor, lambda sent=sent: len(corridor.tasks.sent) > sent)
        assert agent.left() != []
        end(client)
        await settled(reactor, lambda: corridor.tasks.sent[-1][2].cancelled)
        assert agent.left() == []


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_in_the_middle_leaves_nothing(
    corridor: Any, agent: Agent
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    client = await corridor.connect()
    client.send(
        b"POST /demo/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
        b"Content-Type: multipart/form-data; boundary=b-o\r\n\r\n" + part("file", b"x", "a")[:-2]
    )
    await settled(reactor, agent.left)
    client.transport.abortConnection()
    await settled(reactor, lambda: not agent.left())
    await settled(reactor, lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert corridor.records()[-1]["status"] == 499


@pytest_twisted.ensureDeferred
async def test_a_client_that_stops_sending_is_told_so(corridor: Any, agent: Agent) -> None:
    client = await corridor.connect()
    client.send(
        b"POST /demo/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
        b"Content-Type: multipart/form-data; boundary=b-o\r\n\r\n" + part("file", b"x", "a")
    )
    await settled(reactor, agent.left)
    corridor.clock.advance(31)
    assert (await client.answer()).status == 408
    assert agent.left() == []


# --- an agent that wants more than it gets


@pytest_twisted.ensureDeferred
async def test_a_link_in_place_of_the_directory_leads_nowhere(
    upload: Any, agent: Agent, tmp_path: Path
) -> None:
    """Files are not written, nor anything deleted, where an agent points to."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (agent.queue / "uploads").rmdir()
    (agent.queue / "uploads").symlink_to(elsewhere)
    answer = await upload(part("file", b"x", "a") + END)
    assert (answer.status, json.loads(answer.body)["code"]) == (502, "AGENT_BROKEN")
    assert list(elsewhere.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_what_an_agent_makes_of_its_files_is_deleted_and_nothing_else(
    upload: Any, agent: Agent, corridor: Any, tmp_path: Path
) -> None:
    """A tree in the directory, links to elsewhere, or a link in place of the directory itself."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep")

    def grow(directory: Path) -> None:
        (directory / "a/b").mkdir(parents=True)
        (directory / "a/link").symlink_to(precious)

    def replace(directory: Path) -> None:
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
        directory.symlink_to(precious)

    def hide(directory: Path) -> None:
        directory.rename(agent.queue / "hidden")

    for mischief in (grow, replace, hide):

        def run(task: TaskCall, exchange: FakeExchange, do: Any = mischief) -> None:
            do(agent.queue / "uploads" / task.task)
            exchange.say(b"1", 200, JSON)

        corridor.tasks.respond = run
        assert (await upload(part("file", b"x", "a") + END)).status == 200
        assert agent.left() == []
    assert (precious / "file").read_text() == "keep"


def test_a_queue_that_an_older_server_made_takes_uploads_too(tmp_path: Path) -> None:
    spool = Spool(DirectBlocking(), str(tmp_path / "run"), "w1")
    spool.open()
    queue = tmp_path / "run/i/one"
    queue.mkdir(parents=True)
    batch = spool.batch("w1-1", 0)
    assert batch.begin_file() == "uploads/w1-1/file-1"
    batch.write(b"abc")
    batch.end_file()
    batch.hand_to(str(queue))
    assert (queue / "uploads/w1-1/file-1").read_bytes() == b"abc"
    batch.remove()
    batch.remove()
    assert list((queue / "uploads").iterdir()) == []
    spool.close()


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    """Before the body is read, where its length is known; at the write otherwise."""
    spool = Spool(DirectBlocking(), str(tmp_path), "w1")
    spool.open()
    with pytest.raises(InsufficientStorage):
        spool.batch("w1-1", 2**60)
    batch = spool.batch("w1-2", 0)
    batch.begin_file()
    os.close(batch._file)
    batch._file = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(InsufficientStorage, match="disk is full"):
        batch.write(b"x")
    batch.remove()
    with pytest.raises(UploadFailed):
        batch.begin_file()
    spool.close()


def test_what_a_dead_worker_left_is_swept_and_what_lives_is_not(tmp_path: Path) -> None:
    """In its own directory and in the queues; a worker that is killed gives its lock back."""
    queue = tmp_path / "i/one"
    queue.mkdir(parents=True)
    dead, alive = (Spool(DirectBlocking(), str(tmp_path), name) for name in ("w1", "w2"))
    for spool, name in ((dead, "w1"), (alive, "w2")):
        spool.open()
        for task, handed in ((f"{name}-1", True), (f"{name}-2", False)):
            batch = spool.batch(task, 0)
            batch.begin_file()
            if handed:
                batch.hand_to(str(queue))
    os.close(dead._lock)  # what the kernel does with a dead process's

    new = Spool(DirectBlocking(), str(tmp_path), "w3")
    new.open()

    assert sorted(place.name for place in (tmp_path / "uploads").iterdir()) == ["w2", "w3"]
    assert [place.name for place in (queue / "uploads").iterdir()] == ["w2-1"]
    assert [place.name for place in (tmp_path / "uploads/w2").iterdir()] == ["w2-2"]
    new.close()
    alive.close()


def test_a_worker_begins_though_another_one_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two start at once: one may take the other's new directory for a dead one's."""
    sweeping, beginning = (Spool(DirectBlocking(), str(tmp_path), name) for name in ("w1", "w2"))
    swept: list[bool] = []
    opened = os.open

    def late(path: Any, *arguments: Any, **more: Any) -> int:
        if path == tmp_path / "uploads/w2" and not swept:
            swept.append(True)
            sweeping.open()
        return opened(path, *arguments, **more)

    monkeypatch.setattr(os, "open", late)
    beginning.open()
    assert swept
    assert sorted(place.name for place in (tmp_path / "uploads").iterdir()) == ["w1", "w2"]
    beginning.close()
    sweeping.close()


class Kept:
    """A batch in memory, and an answer that keeps what went wrong."""

    def __init__(self) -> None:
        self.files: list[bytes] = []
        self.error: Any = None

    def begin_file(self) -> str:
        self.files.append(b"")
        return str(len(self.files))

    def write(self, chunk: bytes) -> None:
        self.files[-1] += chunk

    def end_file(self) -> None:
        pass

    def remove(self) -> None:
        pass

    def failed(self, error: Any) -> None:
        self.error = error


@settings(max_examples=200, deadline=None)
@given(
    files=st.lists(
        st.lists(st.sampled_from([b"\r\n", b"--b-o", b"-", b"\r", b"x" * 50]), max_size=12).map(
            b"".join
        ),
        min_size=1,
        max_size=4,
    ),
    cuts=st.lists(st.integers(0, 600), max_size=20),
)
def test_files_come_through_however_the_body_is_cut(files: list[bytes], cuts: list[int]) -> None:
    """Whatever looks like a boundary and is none is part of a file."""
    files = [content for content in files if b"\r\n--b-o" not in b"\r\n" + content] or [b""]
    body = b"".join(part("file", content, "a") for content in files) + END
    kept, whole = Kept(), []
    reception = Reception(
        UploadForm("b-o"),
        "t",
        kept,
        kept,
        lambda: whole.append(True),  # type: ignore[arg-type]
    )
    ends = sorted({*(cut for cut in cuts if cut < len(body)), len(body)})
    for start, end in zip([0, *ends], ends, strict=False):
        reception.write(body[start:end])
    reception.finish()
    assert kept.error is None
    assert whole == [True]
    assert kept.files == files


def test_batches_are_what_receptions_take() -> None:
    """The stand-in above has what the real one has."""
    for name in ("begin_file", "write", "end_file", "remove"):
        assert callable(getattr(Batch, name))
