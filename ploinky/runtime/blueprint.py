"""From an `InstanceSpec` to what a container engine is asked for.  No engine is asked here.

Source: contract, section 3, and the engines' common API (Docker Engine API 1.41,
``POST /containers/create``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from docker.types import Mount

from ploinky.instance_values import InstanceSpec, Resources
from ploinky.runtime import places
from ploinky.runtime.facts import EngineFacts
from ploinky.runtime.places import AGENT_DIRECTORY, AGENTCORE_DIRECTORY, QUEUE_DIRECTORY
from ploinky.values import Kind

AGENTCORE_PORT = 7000
"""Inside, where AgentCore's socket cannot be reached and ``$PORT`` is published instead."""

LABEL_CLUSTER = "ploinky.cluster"
LABEL_DEPLOYMENT = "ploinky.deployment"
LABEL_RELEASE = "ploinky.release"
LABEL_INSTANCE = "ploinky.instance"
LABEL_PORT = "ploinky.port"
"""The port inside that is spoken to over TCP; absent where ``agent.sock`` is spoken to."""

_OURS = (Kind.TASK, Kind.STATIC)
"""Kinds that run nothing but what this server starts, as its own user and confined as such."""

LOG_LIMIT = {"max-size": "10m"}


@frozen
class Surroundings:
    """What stands around a container on this host.

    Attributes:
        agentcore: The engine's directory.
        deployments: Holds the task agents' volumes, by deployment.
        uid: Of the server; task agents run as it.
        gid: Likewise.
    """

    agentcore: Path
    deployments: Path
    uid: int
    gid: int


@frozen
class Blueprint:
    """Arguments of the SDK's ``create_container`` and ``create_host_config``."""

    container: Mapping[str, Any]
    host: Mapping[str, Any]


def container_name(instance: str) -> str:
    """Give the name of an instance's container."""
    return f"ploinky-{instance}"


def labels(spec: InstanceSpec) -> dict[str, str]:
    """Give what the server finds its own containers by."""
    return {
        LABEL_CLUSTER: spec.cluster,
        LABEL_DEPLOYMENT: spec.deployment,
        LABEL_RELEASE: str(spec.release),
        LABEL_INSTANCE: spec.instance,
    }


def volume_name(surroundings: Surroundings, spec: InstanceSpec, name: str) -> str:
    """Give the engine's name of a service's volume."""
    restored = places.RestoredVolume.of(surroundings.deployments, spec.deployment, name)
    return restored.name() or f"ploinky-{spec.deployment}-{name}"


def task_user(surroundings: Surroundings, facts: EngineFacts) -> str:
    """Tell who inside is the server's own user outside.

    A rootless engine maps root inside to the user that runs it.
    """
    return "0:0" if facts.rootless else f"{surroundings.uid}:{surroundings.gid}"


def instance_blueprint(
    spec: InstanceSpec,
    facts: EngineFacts,
    surroundings: Surroundings,
    port: int | None,
    publish: bool,
) -> Blueprint:
    """Describe the container of an instance.

    Args:
        port: What it is to listen at over TCP; None: on ``agent.sock`` alone.
        publish: Whether a free port on this host's loopback is to lead there.
    """
    container = {
        **_common(spec, facts, surroundings),
        "name": container_name(spec.instance),
    }
    if port is not None:
        container["environment"]["PORT"] = str(port)
        container["labels"][LABEL_PORT] = str(port)
        container["ports"] = [port]
    if spec.entrypoint and spec.kind is Kind.SERVICE:
        container["entrypoint"] = list(spec.entrypoint)
        container["command"] = list(spec.command)
    elif spec.command:
        container["command"] = list(spec.command)
    elif spec.kind is Kind.TASK:
        container["entrypoint"] = ["/bin/sh", f"{AGENTCORE_DIRECTORY}/run.sh"]
        container["command"] = []
    if spec.code_directory and (spec.kind is Kind.TASK or spec.command):
        container["working_dir"] = AGENT_DIRECTORY
    mounts = [
        *_code_mounts(spec),
        Mount(QUEUE_DIRECTORY, spec.queue_directory, type="bind"),
        Mount(AGENTCORE_DIRECTORY, str(surroundings.agentcore), type="bind", read_only=True),
        *_volume_mounts(spec, surroundings),
    ]
    host = {
        **_confinement(spec, facts),
        "mounts": mounts,
        "restart_policy": {"Name": "unless-stopped"},
        "port_bindings": {port: ("127.0.0.1",)} if publish else None,
    }
    return Blueprint(container, host)


def once_blueprint(
    spec: InstanceSpec, shell_command: str, facts: EngineFacts, surroundings: Surroundings
) -> Blueprint:
    """Describe the throw-away container of one shell command.

    It runs as the server's own user for every kind, so that what it writes into the code
    directory can be removed again.
    """
    container = {
        **_common(spec, facts, surroundings),
        "name": container_name(spec.instance) + "-once",
        "entrypoint": ["/bin/sh", "-c"],
        "command": [shell_command],
        "user": spec.user or task_user(surroundings, facts),
        "working_dir": AGENT_DIRECTORY if spec.code_directory else None,
    }
    return Blueprint(container, {**_confinement(spec, facts), "mounts": _code_mounts(spec)})


def _common(spec: InstanceSpec, facts: EngineFacts, surroundings: Surroundings) -> dict[str, Any]:
    variables = places.environment(spec, AGENT_DIRECTORY, QUEUE_DIRECTORY)
    user: str | None = spec.user or None
    if spec.kind in _OURS:
        user = user or task_user(surroundings, facts)
        # The image knows no home directory for a user it has not heard of.
        variables.setdefault("HOME", "/tmp")  # noqa: S108
    return {
        "image": spec.image,
        "labels": labels(spec),
        "environment": variables,
        "user": user,
    }


def _confinement(spec: InstanceSpec, facts: EngineFacts) -> dict[str, Any]:
    """What every container is held by, whether it serves or installs."""
    security = ["no-new-privileges"]
    if facts.selinux:
        # The label of the mounted directories is not ours to change: they lie in the
        # user's home and in Python's site-packages.
        security.append("label=disable")
    host: dict[str, Any] = {
        "network_mode": "bridge",
        "security_opt": security,
        "init": True,
        "log_config": {"type": "json-file", "config": dict(LOG_LIMIT)},
        **_limits(spec.resources),
    }
    capabilities = spec.capabilities
    if capabilities is None and spec.kind in _OURS:
        capabilities = ()
    if capabilities is not None:
        host["cap_drop"] = ["ALL"]
        host["cap_add"] = list(capabilities)
    return host


def _limits(resources: Resources) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if resources.memory_bytes is not None:
        limits["mem_limit"] = limits["memswap_limit"] = resources.memory_bytes
    if resources.cpus is not None:
        limits["nano_cpus"] = int(resources.cpus * 1_000_000_000)
    if resources.pids is not None:
        limits["pids_limit"] = resources.pids
    return limits


def _code_mounts(spec: InstanceSpec) -> list[Mount]:
    if not spec.code_directory:
        return []
    return [Mount(AGENT_DIRECTORY, spec.code_directory, type="bind")]


def _volume_mounts(spec: InstanceSpec, surroundings: Surroundings) -> list[Mount]:
    """Task agents' volumes are directories of ours, which their user may write to; services'
    are the engine's, which begin as copies of what the image has there, with its owner.
    """
    if spec.kind is not Kind.TASK:
        return [
            Mount(each.path, volume_name(surroundings, spec, each.name), type="volume")
            for each in spec.volumes
        ]
    return [
        Mount(
            each.path,
            str(places.volume_directory(surroundings.deployments, spec, each.name)),
            type="bind",
        )
        for each in spec.volumes
    ]
