"""From what a container engine says of a container to an `InstanceStatus`.  Pure.

Source: Docker Engine API 1.41, ``GET /containers/{id}/json``; Podman's compatible API.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ploinky.instance_values import InstanceStatus
from ploinky.runtime import blueprint
from ploinky.values import Address

LOOPBACK = "127.0.0.1"


def read_status(
    container: Mapping[str, Any], bridge_in_reach: Callable[[str], bool]
) -> InstanceStatus:
    """Read one container's description.

    Args:
        bridge_in_reach: Tells by a bridge's own address whether this host can reach what
            hangs on it.
    """
    labels = container["Config"]["Labels"]
    state = container["State"]
    # While Docker waits to start one again, it calls it running, and restarting too.
    running = bool(state.get("Running")) and state.get("Status") != "restarting"
    ended = not running and state.get("Status") != "created"
    return InstanceStatus(
        instance=labels[blueprint.LABEL_INSTANCE],
        deployment=labels.get(blueprint.LABEL_DEPLOYMENT, ""),
        release=_number(labels.get(blueprint.LABEL_RELEASE)) or 0,
        running=running,
        exit_code=state.get("ExitCode") if ended else None,
        out_of_memory=bool(state.get("OOMKilled")),
        restarts=int(container.get("RestartCount") or 0),
        address=_address(container, bridge_in_reach) if running else None,
    )


def finished_at(container: Mapping[str, Any]) -> int:
    """Give when a container ended last, in nanoseconds since 1970; negative where it never did."""
    text = container["State"]["FinishedAt"].replace("Z", "+00:00")
    # `datetime` keeps microseconds; of "2026-01-31T12:00:00.123456789Z" all is wanted.
    fraction = re.search(r"\.(\d+)", text)
    seconds = int(datetime.fromisoformat(re.sub(r"\.\d+", "", text)).timestamp())
    return seconds * 10**9 + (int(fraction[1].ljust(9, "0")) if fraction else 0)


def _address(
    container: Mapping[str, Any], bridge_in_reach: Callable[[str], bool]
) -> Address | None:
    """The bridge's address where it is in reach, else the published port."""
    port = _number(container["Config"]["Labels"].get(blueprint.LABEL_PORT))
    if port is None:
        return None
    host, gateway = _bridge(container)
    if host and gateway and bridge_in_reach(gateway):
        return Address(host=host, port=port)
    published = _published(container)
    return Address(host=LOOPBACK, port=published) if published else None


def gateway(container: Mapping[str, Any]) -> str:
    """Give the address of the bridge that the container hangs on, or ``""``."""
    return _bridge(container)[1]


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _bridge(container: Mapping[str, Any]) -> tuple[str, str]:
    """Give (address, gateway).  The network is called ``bridge`` by one engine, `podman` by the other."""
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    for network in networks.values():
        if network and network.get("IPAddress"):
            return network["IPAddress"], network.get("Gateway") or ""
    return "", ""


def _published(container: Mapping[str, Any]) -> int | None:
    ports = (container.get("NetworkSettings") or {}).get("Ports") or {}
    for bindings in ports.values():
        for binding in bindings or ():
            if str(binding.get("HostPort", "")).isdigit() and binding["HostPort"] != "0":
                return int(binding["HostPort"])
    return None


def exposed_port(image: Mapping[str, Any]) -> int | None:
    """Give the one TCP port that an image declares; None where it is not exactly one."""
    declared = (image.get("Config") or {}).get("ExposedPorts") or {}
    ports = [each.partition("/")[0] for each in declared if each.endswith("/tcp")]
    return int(ports[0]) if len(ports) == 1 and ports[0].isdigit() else None
