"""Changes of what workers serve by: found between two snapshots, cut into parts, put together again.

Snapshots enter and parts leave at the leader's end; parts enter and a change leaves at a worker's.
A whole table travels in the same way, as the change that makes it of nothing.  No I/O.

A part holds at most `PART_BYTES`, whatever a route may be; a piece is a line of JSON with some of
the change, so that no worker ever holds a large table as bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, TypeVar

import attrs
import msgspec
from attrs import field, frozen

from ploinky.link.sharing import Shared
from ploinky.link.wire import PART_BYTES
from ploinky.values import DeploymentKey, Principal, Route, RouteChange, RouteSnapshot

T = TypeVar("T")

PIECE = 50
"""Most routes, keys, principals or hashes in a piece; so many routes go into a part, as a rule."""


@frozen
class Piece:
    """Some of a change; `RouteChange` says what its attributes are."""

    routes: tuple[Route, ...] = ()
    gone: tuple[DeploymentKey, ...] = ()
    principals: tuple[Principal, ...] = ()
    revoked: tuple[str, ...] = field(default=(), repr=False)


@frozen
class Parcel:
    """A change as it is sent.

    Attributes:
        base: See `RouteChange`; 0 where it is a whole table.
        parts: In order.
    """

    base: int
    generation: int
    parts: tuple[bytes, ...] = field(repr=False)


def change_between(before: RouteSnapshot, after: RouteSnapshot) -> RouteChange:
    """Give what leads from one snapshot to another.

    A route or principal that is the same object in both is not looked into, so that a change costs
    little where it is small.
    """
    routes, gone = _differences(before.routes, after.routes, attrgetter("key"))
    principals, revoked = _differences(
        before.principals, after.principals, attrgetter("token_hash")
    )
    return RouteChange(before.generation, after.generation, routes, gone, principals, revoked)


def _differences(
    before: Iterable[T], after: Iterable[T], name: Callable[[T], Any]
) -> tuple[tuple[T, ...], tuple[Any, ...]]:
    """Give what is new or other than it was, and the names of what is gone."""
    stood = {name(one): one for one in before}
    changed = []
    for one in after:
        was = stood.pop(name(one), None)
        if was is not one and was != one:
            changed.append(one)
    return tuple(changed), tuple(stood)


def whole_of(snapshot: RouteSnapshot) -> RouteChange:
    """Give the change that makes a snapshot of nothing."""
    return RouteChange(0, snapshot.generation, snapshot.routes, (), snapshot.principals)


def parcel_of(change: RouteChange) -> Parcel:
    """Make it ready to be sent."""
    parts = [
        line[start : start + PART_BYTES]
        for line in _lines(change)
        for start in range(0, len(line), PART_BYTES)
    ]
    return Parcel(change.base, change.generation, tuple(parts))


def _lines(change: RouteChange) -> Iterator[bytes]:
    longest = max(map(len, (change.routes, change.gone, change.principals, change.revoked)))
    for start in range(0, longest, PIECE):
        some = slice(start, start + PIECE)
        piece = Piece(
            change.routes[some], change.gone[some], change.principals[some], change.revoked[some]
        )
        yield msgspec.json.encode(piece) + b"\n"


class Assembly:
    """Puts a change together from its parts, each piece as soon as it is there.

    Args:
        shared: Gives equal values the same object.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._line = b""
        self._pieces: list[Piece] = []
        self._unreadable: Exception | None = None
        self.parts = 0

    def add(self, part: bytes) -> None:
        """Take the next part; one that cannot be read makes `change` fail."""
        self.parts += 1
        self._line += part
        if not self._line.endswith(b"\n"):
            return
        try:
            piece = msgspec.json.decode(self._line, type=Piece)
        except msgspec.MsgspecError as error:
            self._unreadable = error
        else:
            routes = tuple(map(self._shared.route, piece.routes))
            self._pieces.append(attrs.evolve(piece, routes=routes))
        self._line = b""

    def change(self, base: int, generation: int) -> RouteChange:
        """Give what has come.

        Raises:
            ValueError: It could not be read.
        """
        if self._unreadable is not None:
            raise ValueError(f"generation {generation} cannot be read") from self._unreadable
        return RouteChange(
            base,
            generation,
            tuple(route for piece in self._pieces for route in piece.routes),
            tuple(key for piece in self._pieces for key in piece.gone),
            tuple(principal for piece in self._pieces for principal in piece.principals),
            tuple(one for piece in self._pieces for one in piece.revoked),
        )
