"""How many sockets a worker may hold, so that it never lacks one for an agent.

Clients and connections to agents are counted against one number.  Where it is reached, clients
without a request in hand make room, those that have been open for longest first; only where
there are none is a new client turned away.
"""

from __future__ import annotations

import resource
from itertools import islice
from math import inf
from typing import Protocol

from twisted.logger import Logger

_RESERVED = 256
"""For logs, the link, watches on files, and what is closed only in the reactor's next turn."""

_LOOKED_AT = 64


class Client(Protocol):
    """One open connection of a client."""

    def give_way(self) -> bool:
        """Close, if no request is in hand; tell whether it does."""

    def retire(self) -> None:
        """End after the request in hand, or the next one if it comes soon."""

    def abort(self) -> None:
        """Close at once."""

    @property
    def on_short_way(self) -> bool:
        """Whether a request is in hand on the short way."""


class Descriptors:
    """A worker's sockets.

    Args:
        most: Of all of them together.

    Attributes:
        clients: All that are open, in the order in which they are asked to make room.
        agents: How many connections to agents there are, or are being made.
        turned_away: How many clients found no room, ever.
    """

    _log = Logger()

    def __init__(self, most: float = inf) -> None:
        self._most = most
        self.clients: dict[Client, None] = {}
        self.agents = 0
        self.turned_away = 0
        self._crowded = False

    @classmethod
    def of_this_process(cls) -> Descriptors:
        """Take what the system gives, having asked it for all that it gives."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if hard == resource.RLIM_INFINITY:
            return cls()
        return cls(max(hard - _RESERVED, hard // 2))

    def admits(self, in_hand: int) -> bool:
        """Tell whether one more client may come in; another may have to go for it.

        Args:
            in_hand: Requests that are being answered: each may need a connection to its agent.
        """
        if len(self.clients) + max(self.agents, in_hand) < self._most or self._make_room():
            return True
        self.turned_away += 1
        return False

    def take(self) -> None:
        """Count a connection to an agent that is about to be made."""
        self.agents += 1
        if len(self.clients) + self.agents > self._most:
            self._make_room()

    def give_back(self) -> None:
        """Count it no more."""
        self.agents -= 1

    def _make_room(self) -> bool:
        if not self._crowded:
            self._crowded = True
            self._log.warn(
                "{most} sockets are in use: idle clients make room; raise the limit of open files",
                most=self._most,
            )
        for client in list(islice(self.clients, _LOOKED_AT)):
            del self.clients[client]
            if client.give_way():
                return True
            self.clients[client] = None
        return False
