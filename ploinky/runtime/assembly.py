"""How an engine is put together, by both of the modules that find one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.application.service import Service

from ploinky.runtime import facts, places
from ploinky.runtime.blueprint import Surroundings
from ploinky.runtime.engine import ContainerEngine
from ploinky.runtime.facts import Ask, Connection, EngineFacts
from ploinky.threads import Blocking

THREADS = 16


def surroundings(data_directory: Path) -> Surroundings:
    """Give what stands around containers on this host."""
    return Surroundings(
        agentcore=places.agentcore_directory(),
        deployments=data_directory / "deployments",
        uid=os.getuid(),
        gid=os.getgid(),
    )


def assembled(
    reactor: Any,
    title: str,
    connection: Connection,
    data_directory: Path,
    companion: Service | None = None,
) -> ContainerEngine:
    """Build an engine with a pool of its own; whoever gets it starts and stops it."""
    return ContainerEngine(
        reactor,
        Blocking(reactor, THREADS, title.lower()),
        title,
        connection,
        surroundings(data_directory),
        companion,
    )


async def first_of(
    reactor: Any,
    connections: Sequence[Connection],
    wanted: Callable[[EngineFacts], bool],
    ask: Ask,
) -> tuple[Connection | None, list[str]]:
    """Find the first connection where an engine of the wanted make answers, in a thread.

    Returns:
        It, or None; and why each one before it would not do.
    """
    blocking = Blocking(reactor, 1, "engine-search")
    blocking.start()
    try:
        return await blocking.run(facts.first_answering, connections, wanted, ask)
    finally:
        blocking.stop()
