"""A sealed stream opens whole, in order and to its end, under its passphrase; else not at all."""

from __future__ import annotations

import io
import os

import pytest

from ploinky.backup.envelope import CHUNK_BYTES, Opened, Seal
from ploinky.errors import BackupInvalid

PASSPHRASE = "corréct horse battery staple"
PLAIN = os.urandom(2 * CHUNK_BYTES + 10)


def sealed(plain: bytes) -> bytes:
    """Seal it as it comes, in pieces of odd sizes."""
    seal = Seal(PASSPHRASE, os.urandom)
    pieces = [seal.head]
    for start in range(0, len(plain), 10_007):
        pieces.append(seal.add(plain[start : start + 10_007]))
    return b"".join([*pieces, seal.end()])


def opened(data: bytes, passphrase: str = PASSPHRASE) -> bytes:
    """Read it to its end."""
    stream = Opened(io.BytesIO(data).read, passphrase)
    found = []
    while piece := stream.read(7_001):
        found.append(piece)
    return b"".join(found)


@pytest.fixture(scope="module")
def whole() -> bytes:
    """Three chunks, the last one short."""
    return sealed(PLAIN)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_what_was_sealed_opens(size: int) -> None:
    """Whatever its length; and shows nothing of itself."""
    data = sealed(PLAIN[:size])
    assert opened(data) == PLAIN[:size]
    assert size == 0 or PLAIN[:16] not in data


def test_a_passphrase_opens_however_its_letters_are_composed(whole: bytes) -> None:
    """One keyboard gives an accent of its own, another one letter with an accent."""
    assert opened(whole, "corre\u0301ct horse battery staple") == PLAIN


def test_another_passphrase_is_told_apart(whole: bytes) -> None:
    """The message says what may be wrong."""
    with pytest.raises(BackupInvalid, match="passphrase"):
        opened(whole, "another passphrase")


_CHUNK = CHUNK_BYTES + 16
_HEAD = len(Seal("x" * 12, os.urandom).head)
SPOILT = {
    "one bit": lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
    "its head": lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
    "cut off at a chunk": lambda data: data[: _HEAD + _CHUNK],
    "cut off in a chunk": lambda data: data[:-5],
    "cut off in its head": lambda data: data[:10],
    "chunks that changed places": lambda data: (
        data[:_HEAD]
        + data[_HEAD + _CHUNK : _HEAD + 2 * _CHUNK]
        + data[_HEAD : _HEAD + _CHUNK]
        + data[_HEAD + 2 * _CHUNK :]
    ),
    "something behind its end": lambda data: data + b"more",
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_was_meddled_with_is_refused(what: str, whole: bytes) -> None:
    """Nothing of it passes for what was sealed."""
    with pytest.raises(BackupInvalid):
        opened(SPOILT[what](whole))


def test_a_head_cannot_ask_for_all_memory(whole: bytes) -> None:
    """It says how costly the key is to be made; a terabyte is not spent on a stranger's word."""
    with pytest.raises(BackupInvalid, match="does not know"):
        opened(whole[:16] + b"\x28" + whole[17:])
