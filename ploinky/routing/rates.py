"""Admission by rate, exact across workers: one small mapped file that all of them share.

A limit and a client enter; how long the client has to wait leaves.  A slot holds the moment
at which its client has used up nothing (GCRA, the virtual-scheduling form): admitting moves it
on by one interval.  This module knows no HTTP and no route.
"""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from zope.interface import implementer

from ploinky.limit_interfaces import IRates
from ploinky.values import RateLimit

FILE_NAME = "rates-1"
"""In the run directory; the number is that of the layout."""

LOGINS_FILE_NAME = "logins-1"
"""Where logins are counted: apart, so that no flood of calls pushes a guesser out."""

_HEADER_BYTES = 64
_SECRET_BYTES = 32
_SLOTS = 1 << 17
_WAYS = 8
"""Slots in which one client may stand: only more than so many at once push one another out."""

_TAG_BITS = 20
_TIME_BITS = 64 - _TAG_BITS
_TIME_MASK = (1 << _TIME_BITS) - 1
_TICKS = 1 << 20
"""A second.  44 bits of them come round after half a year, so times are compared modulo that."""

_LONGEST = 86_400 * _TICKS
"""No client is ever booked further ahead than the longest limit: what says so is left over."""


@implementer(IRates)
class SharedRates:
    """Counts with everyone else who opened the same directory's file.

    Each slot is one aligned word, read and written whole.  Two workers that admit the same
    client in the same instant may count its two calls as one, and no more than that.  Where a
    client stands follows from a secret in the file, so that nobody can aim at another's slot;
    memory is the file's megabyte, however many clients there are.

    Args:
        directory: Where the file lies, or is made, for this user alone.
        clock: Nanoseconds, the same for all processes (``time.monotonic_ns``).
        name: The file's.

    Raises:
        OSError: The file cannot be made, read or mapped.
    """

    def __init__(self, directory: Path, clock: Callable[[], int], name: str = FILE_NAME) -> None:
        self._clock = clock
        path = directory / name
        size = _HEADER_BYTES + 8 * _SLOTS
        if not path.exists() or path.stat().st_size != size:
            _make(path, size)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._secret = self._map[:_SECRET_BYTES]
        self._slots = memoryview(self._map)[_HEADER_BYTES:].cast("Q")

    def wait_seconds(self, limit: RateLimit, what: str, client: str) -> float:
        """Count one call, unless it comes too early; see `IRates`."""
        interval, burst = _terms(limit)
        now, slot, tag, ahead = self._booked(limit, what, client)
        if ahead > burst:
            return (ahead - burst) / _TICKS
        self._slots[slot] = tag << _TIME_BITS | (now + ahead + interval & _TIME_MASK)
        return 0.0

    def would_wait_seconds(self, limit: RateLimit, what: str, client: str) -> float:
        """Count nothing; see `IRates`."""
        _, burst = _terms(limit)
        _, _, _, ahead = self._booked(limit, what, client)
        return max(0, ahead - burst) / _TICKS

    def forget(self, limit: RateLimit, what: str, client: str) -> None:
        """Let a client begin anew; see `IRates`."""
        now, slot, tag, ahead = self._booked(limit, what, client)
        if ahead:
            self._slots[slot] = tag << _TIME_BITS | now

    def close(self) -> None:
        """Let go of the file; others go on with it."""
        self._slots.release()
        self._map.close()

    def _booked(self, limit: RateLimit, what: str, client: str) -> tuple[int, int, int, int]:
        """Give the present moment, a client's slot, its tag, and for how far ahead it is booked."""
        now = self._clock() * _TICKS // 1_000_000_000 & _TIME_MASK
        slot, tag, ahead = self._find(f"{limit.requests} {limit.seconds}\0{what}\0{client}", now)
        if ahead > sum(_terms(limit)):
            ahead = 0  # more than can be booked: of a clock that has begun anew since, at a reboot
        return now, slot, tag, ahead

    def _find(self, key: str, now: int) -> tuple[int, int, int]:
        """Give a client's slot, its tag, and for how many ticks ahead it is booked."""
        digest = blake2b(key.encode(), digest_size=8, key=self._secret).digest()
        number = int.from_bytes(digest, "little")
        tag = number & (1 << _TAG_BITS) - 1
        first = (number >> _TAG_BITS) % (_SLOTS // _WAYS) * _WAYS
        free, least = first, _LONGEST
        for slot in range(first, first + _WAYS):
            value = self._slots[slot]
            ahead = value - now & _TIME_MASK
            if ahead > _LONGEST:  # it lies behind
                ahead = 0
            if value >> _TIME_BITS == tag:
                return slot, tag, ahead
            if ahead < least:
                free, least = slot, ahead
        return free, tag, 0


def _terms(limit: RateLimit) -> tuple[int, int]:
    """Give, in ticks, how far one call books ahead, and how far ahead calls are let in."""
    interval = max(1, round(limit.seconds * _TICKS / limit.requests))
    return interval, interval * (limit.requests - 1)


def _make(path: Path, size: int) -> None:
    """Put an empty file with a new secret into place; whoever comes first wins."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
            # Without holes: where the disk is full later on, filling one would kill the process.
            file.write(bytes(size - _SECRET_BYTES))
        if path.exists() and path.stat().st_size != size:
            os.replace(draft, path)
            return
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
