"""What one container engine is like, found out once, and how it is reached.

Blocking: everything here is called in a thread.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import docker
import docker.errors
import requests
from attrs import field, frozen

from ploinky.deploy_errors import EngineUnavailable

PING_SECONDS = 5.0


@frozen
class Connection:
    """How an engine's API is reached.

    Attributes:
        url: As in ``DOCKER_HOST``.
        tls: A ``docker.tls.TLSConfig``, or None.
    """

    url: str
    tls: Any = field(default=None, repr=False)


@frozen
class EngineFacts:
    """What differs from one engine to the next and decides how instances are started.

    Attributes:
        podman: Whether it is Podman, whatever socket it answers at.
        same_machine: Whether it runs on this kernel.  Only then can a Unix socket in a
            mounted directory be reached (not with Docker Desktop, not with a remote engine).
        rootless: Whether root inside is the user that runs the engine.
        selinux: Whether it confines containers with SELinux.
    """

    podman: bool = False
    same_machine: bool = True
    rootless: bool = False
    selinux: bool = False


class ApiClient(docker.APIClient):  # type: ignore[misc]
    """The SDK's client, but no request of it waits for ever (the SDK's ``pull`` does)."""

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        """Send one request; reads time out as the client was told."""
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.timeout
        return super().request(method, url, *args, **kwargs)


def connect(connection: Connection, timeout_seconds: float) -> ApiClient:
    """Give a client; its owner closes it.

    Raises:
        EngineUnavailable: Nothing answers, in words that say what is missing.
    """
    try:
        _knock(connection.url)
        return ApiClient(
            base_url=connection.url,
            tls=connection.tls or False,
            version="auto",
            timeout=timeout_seconds,
        )
    except PermissionError as error:
        raise EngineUnavailable(
            f"this user may not open {connection.url}; add it to the group that owns the socket"
            " (for Docker: usermod -aG docker NAME, then log in again)"
        ) from error
    except FileNotFoundError as error:
        raise EngineUnavailable(f"there is no socket at {connection.url}") from error
    except ConnectionRefusedError as error:
        raise EngineUnavailable(f"nothing listens at {connection.url}") from error
    except (OSError, requests.RequestException, docker.errors.DockerException) as error:
        raise EngineUnavailable(f"{connection.url} does not answer: {error}") from error


def _knock(url: str) -> None:
    """Connect once by hand: the SDK wraps the system's reason beyond recognition."""
    if url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PING_SECONDS)
            probe.connect(url.removeprefix("unix://"))


def ask(connection: Connection) -> EngineFacts:
    """Find out what answers there.

    Raises:
        EngineUnavailable: Nothing does.
    """
    client = connect(connection, PING_SECONDS)
    try:
        return read_facts(client.info(), client.version(), os.uname())
    except (OSError, requests.RequestException, docker.errors.DockerException) as error:
        raise EngineUnavailable(f"{connection.url} does not answer: {error}") from error
    finally:
        client.close()


def read_facts(
    info: Mapping[str, Any], version: Mapping[str, Any], here: os.uname_result
) -> EngineFacts:
    """Read the engine's own description (``GET /info``, ``GET /version``)."""
    security: Sequence[str] = info.get("SecurityOptions") or ()
    components = [part.get("Name", "") for part in version.get("Components") or ()]
    return EngineFacts(
        podman="Podman Engine" in components,
        same_machine=(
            info.get("KernelVersion") == here.release and info.get("Name") == here.nodename
        ),
        rootless=bool(info.get("Rootless")) or any("name=rootless" in each for each in security),
        selinux=any("name=selinux" in each for each in security),
    )


Ask = Callable[[Connection], EngineFacts]


def first_answering(
    connections: Sequence[Connection], wanted: Callable[[EngineFacts], bool], ask: Ask
) -> tuple[Connection | None, list[str]]:
    """Find the first connection where an engine of the wanted make answers.

    Returns:
        It, or None; and why each one before it would not do.
    """
    reasons = []
    for connection in connections:
        try:
            facts = ask(connection)
        except EngineUnavailable as error:
            reasons.append(error.message)
            continue
        if wanted(facts):
            return connection, reasons
        reasons.append(f"another make of engine answers at {connection.url}")
    return None, reasons


def local_address(address: str) -> bool:
    """Tell whether this host has the address itself, by binding a port to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
