"""The server's codec of the frame wire, held to the vectors that the engines are held to."""

from __future__ import annotations

import json
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from ploinky.errors import AgentBroken
from ploinky.tasks import frames
from ploinky.tasks.frames import FrameReader
from ploinky.testing.tasks import a_call
from ploinky.values import TaskCall

VECTORS = json.loads((Path(__file__).parents[1] / "frames.json").read_text())
TYPES = {"HELLO": 16, "RESULT": 17, "ERROR": 18, "BEGIN": 19, "DATA": 20, "END": 21, "FAIL": 22}
TYPES["GOAWAY"] = 23


def write(vector: dict[str, Any]) -> bytes:
    """Write the frame that a vector is about."""
    if "credit" in vector:
        return frames.credit_frame(vector["id"], vector["credit"])
    if "open" not in vector:
        return frames.cancel_frame(vector["id"])
    wanted = vector["open"]
    call = TaskCall(
        task=wanted["task"],
        command=wanted["command"],
        params=wanted["params"].encode(),
        user=wanted["user"],
        deadline_ms=wanted["deadline"],
        request_id=wanted["requestId"],
        to_events=wanted["toEvents"],
    )
    return frames.open_frame(vector["id"], call)


@pytest.mark.parametrize("vector", VECTORS["from_server"], ids=lambda vector: vector["name"])
def test_the_server_writes_what_engines_read(vector: dict[str, Any]) -> None:
    """Byte by byte."""
    assert write(vector).hex() == vector["hex"]


@pytest.mark.parametrize("size", [1, 2, 9, 10, 11, 64, 100_000])
def test_the_server_reads_what_engines_write(size: int) -> None:
    """However the stream is cut."""
    stream = VECTORS["preface"].encode()
    stream += b"".join(bytes.fromhex(vector["hex"]) for vector in VECTORS["from_agent"])
    reader = FrameReader()
    read = [
        frame for at in range(0, len(stream), size) for frame in reader.feed(stream[at : at + size])
    ]
    assert len(read) == len(VECTORS["from_agent"])
    for (kind, number, payload), vector in zip(read, VECTORS["from_agent"], strict=True):
        assert (kind, number) == (TYPES[vector["name"].split(" ")[0]], vector["id"])
        if "hello" in vector:
            assert frames.read_hello(payload) == vector["hello"]
        elif "length" in vector:
            assert frames.read_begin(payload) == (vector["toEvents"], vector["length"] or None)
        elif "status" in vector:
            assert frames.read_error(payload) == (vector["status"], vector["body"].encode())
        else:
            text = vector.get("result", vector.get("data", ""))
            assert payload == text.encode()


@pytest.mark.parametrize(
    "user", ["a\nb", "Zoë", "50%", "\ud800", "", "a\r\nX-Ploinky-User: Admin", "\x00"]
)
def test_no_name_can_break_out_of_its_line(user: str) -> None:
    """Whatever a key is called, the params begin where they begin."""
    frame = frames.open_frame(1, a_call("hello", "p", user=user))
    about, params = frame[18:].rsplit(b"\n", 1)
    assert params == b'["p"]'
    assert about.count(b"\n") == 3
    assert about.isascii()


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"ploinky-frames/2\n",
        frames.PREFACE + pack(">IIB", 65537, 1, 17),
        frames.PREFACE + b"\xff" * 9,
    ],
)
def test_what_is_no_frame_is_refused_at_once(stream: bytes) -> None:
    """Before any of it is kept."""
    with pytest.raises(AgentBroken):
        FrameReader().feed(stream)
    reader = FrameReader()
    with pytest.raises(AgentBroken):
        [reader.feed(bytes([byte])) for byte in stream]


def test_what_a_later_version_adds_to_hello_is_let_be() -> None:
    """So that an engine may say more than this server knows."""
    assert frames.read_hello(pack(">II", 20_000, 7)) == 20_000
    assert frames.read_hello(pack(">I", 2**31)) == 65536


@pytest.mark.parametrize("payload", [b"", b"\0\1\0", pack(">I", 16383)])
def test_an_agent_must_take_what_every_agent_takes(payload: bytes) -> None:
    """Or it is none."""
    with pytest.raises(AgentBroken):
        frames.read_hello(payload)


def test_a_task_that_may_not_fit_does_not_fit() -> None:
    """Names count as long as they may become."""
    assert frames.fits(a_call("hello", "x" * 60_000), 65536)
    assert not frames.fits(a_call("hello", "x" * 65_500), 65536)
    assert not frames.fits(a_call("hello", "x" * 60_000, user="é" * 1000), 65536)
