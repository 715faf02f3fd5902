"""Bytes made from others: what a client or an agent might send that nobody thought of."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tests.routing.corpus import ANSWERS, OK, REQUESTS, SMUGGLED

_VALID = [raw for raw, seen in REQUESTS.values() if not isinstance(seen, int)]
REQUEST_SEEDS = [raw for raw, _ in REQUESTS.values() if len(raw) < 4096] + [*_VALID, SMUGGLED] * 10
ANSWER_SEEDS = [raw for raw, _ in ANSWERS.values() if len(raw) < 4096] + [OK] * 20
"""What is valid stands in them more often: most changes make it something else soon enough."""

_PIECES = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"\x0b", b"\x0c", b"\x7f", b"\x80", b"\xff",
    b"0\r\n\r\n", b"0", b"00", b"-", b"+", b"_", b"0x", b"ffffffffffffffff", b"7fffffffffffffff", b"%2e", b"/..",
    b"chunked", b"identity", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 4\r\n", b"Content-Length: 0\r\n",
    b"Transfer-Encoding:chunked\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Host: localhost\r\n",
    b"Expect: 100-continue\r\n", b"Connection: upgrade\r\nUpgrade: echo/1\r\n", b"HTTP/1.1", b"HTTP/1.0", b"POST ",
    b"GET ", b"HEAD ", b"GET /shop/x HTTP/1.1\r\nHost: localhost\r\n\r\n", b"4\r\nbody\r\n", b"a" * 300, b"X: y\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo/1\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n",
]  # fmt: skip


def made_from(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """Give one to three seeds after one another, changed in up to eight places."""
    data = b"".join(chance.choice(seeds) for _ in range(chance.randint(1, 3)))
    for _ in range(chance.choice((0, 0, 1, 1, 1, 2, 3, 8))):
        data = chance.choice(_WAYS)(data, seeds, chance)
    return data[: 256 * 1024]


def _at(data: bytes, chance: random.Random) -> int:
    """Choose a place; those at the ends of lines more often."""
    if chance.random() < 0.4:
        ends = [at for at, byte in enumerate(data) if byte in b"\r\n:"]
        if ends:
            return chance.choice(ends) + chance.randint(0, 1)
    return chance.randint(0, len(data))


def _insert(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    at = _at(data, chance)
    return data[:at] + chance.choice(_PIECES) + data[at:]


def _remove(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    at = _at(data, chance)
    return data[:at] + data[at + chance.choice((1, 1, 2, 4, 16)) :]


def _change(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    at = _at(data, chance)
    return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]


def _flip(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    at = _at(data, chance)
    flipped = bytes(byte ^ 1 << chance.randrange(8) for byte in data[at : at + 1])
    return data[:at] + flipped + data[at + 1 :]


def _repeat(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at = chance.randrange(len(lines))
    return b"".join(lines[:at] + [lines[at]] * chance.choice((2, 2, 3, 120)) + lines[at + 1 :])


def _swap(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    chance.shuffle(lines)
    return b"".join(lines)


def _splice(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    other = chance.choice(seeds)
    return data[: _at(data, chance)] + other[_at(other, chance) :]


_WAYS: list[Callable[[bytes, Sequence[bytes], random.Random], bytes]] = [
    _insert, _insert, _remove, _change, _flip, _repeat, _swap, _splice,
]  # fmt: skip
