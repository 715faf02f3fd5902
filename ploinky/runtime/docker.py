"""Docker: where its API socket is found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docker.utils import kwargs_from_env

from ploinky.deploy_errors import EngineUnavailable
from ploinky.interfaces import IRuntime
from ploinky.runtime import facts
from ploinky.runtime.assembly import assembled, first_of
from ploinky.runtime.facts import Connection, EngineFacts

TITLE = "Docker"
NEXT_STEP = "Start Docker (systemctl start docker), or set DOCKER_HOST, or choose podman or process"


def connections(environment: Mapping[str, str], uid: int) -> list[Connection]:
    """Give the places where Docker may answer.  ``DOCKER_HOST``, where it is set, is the only one.

    Source: docker(1), *Environment variables*; docs.docker.com/engine/security/rootless.
    """
    if environment.get("DOCKER_HOST"):
        given = kwargs_from_env(environment=dict(environment))
        return [Connection(environment["DOCKER_HOST"], given.get("tls"))]
    urls = ["unix:///var/run/docker.sock"]
    if uid != 0:
        home = environment.get("HOME", "")
        runtime_directory = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
        urls.append(f"unix://{runtime_directory}/docker.sock")
        if home:
            urls += [
                f"unix://{home}/.docker/run/docker.sock",
                f"unix://{home}/.docker/desktop/docker.sock",
            ]
    return [Connection(url) for url in urls]


def _wanted(found: EngineFacts) -> bool:
    return not found.podman


async def available(reactor: Any) -> str:
    """See `IRuntimeFactory`."""
    connection, reasons = await first_of(
        reactor, connections(os.environ, os.getuid()), _wanted, facts.ask
    )
    return "" if connection else f"{'; '.join(reasons)}. {NEXT_STEP}."


async def create(reactor: Any, settings: Any) -> IRuntime:
    """See `IRuntimeFactory`.  What comes back is an ``IService`` too."""
    connection, reasons = await first_of(
        reactor, connections(os.environ, os.getuid()), _wanted, facts.ask
    )
    if connection is None:
        raise EngineUnavailable(f"Docker: {'; '.join(reasons)}. {NEXT_STEP}.")
    return assembled(reactor, TITLE, connection, Path(settings.data_directory))
