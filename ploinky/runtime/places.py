"""Directories that must stand before an instance starts, and go when it has ended."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from attrs import frozen

import ploinky
from ploinky.deploy_errors import StartFailed
from ploinky.instance_values import InstanceSpec

AGENT_DIRECTORY = "/agent"
QUEUE_DIRECTORY = f"{AGENT_DIRECTORY}/.ploinky/queue"
AGENTCORE_DIRECTORY = "/agentCore"
"""Where an instance finds its code, its queue and AgentCore (contract, section 3)."""

QUEUE = "queue"
STATE = ".ploinky"
READY = "ready"
FAILED = "failed"
SOCKET = "agent.sock"

_PARTS = ("tasks", "results", "errors", "locks", "tmp", "uploads")
_LEFTOVERS = (READY, FAILED, SOCKET)


def agentcore_directory() -> Path:
    """Give where AgentCore was installed: beside the package."""
    return Path(ploinky.__file__).resolve().parents[1] / "agentcore"


def prepare_queue(spec: InstanceSpec) -> None:
    """Make the instance's queue, and take away what an earlier run left that would lie now.

    Its directories belong to whom the agent runs as.  Where that cannot be arranged (another
    user was asked for and this process is not root) they are open to everybody who can reach
    them, which is nobody else: the data directory above them is 0700.
    """
    queue = Path(spec.queue_directory)
    owner, mode = _owner(spec.user)
    for directory in (queue, *(queue / part for part in _PARTS)):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(mode)
        if owner is not None:
            os.chown(directory, *owner)
    for name in _LEFTOVERS:
        (queue / name).unlink(missing_ok=True)


def _owner(user: str) -> tuple[tuple[int, int] | None, int]:
    """Tell whom to give the queue to (None: it stays ours) and its directories' mode."""
    if not user:
        return None, 0o700
    uid, _, gid = user.partition(":")
    if not uid.isdigit() or (gid and not gid.isdigit()):
        return None, 0o777
    wanted = (int(uid), int(gid or uid))
    if wanted == (os.getuid(), os.getgid()):
        return None, 0o700
    return (wanted, 0o700) if os.getuid() == 0 else (None, 0o777)


def prepare_mountpoint(spec: InstanceSpec) -> None:
    """Make ``.ploinky/queue`` in the checkout, so that no engine makes it there as root.

    Raises:
        StartFailed: The repository has something else at that name.  A symbolic link is never
            followed: it would make the engine, or us, write outside the checkout.
    """
    if not spec.code_directory:
        return
    place = Path(spec.code_directory)
    for name in (STATE, QUEUE):
        place = place / name
        try:
            place.mkdir(mode=0o755)
        except FileExistsError:
            if place.is_symlink() or not place.is_dir():
                raise StartFailed(
                    f"The repository has a file or link where {STATE}/{QUEUE} has to be mounted;"
                    f" remove {place.relative_to(spec.code_directory)} from it."
                ) from None


def volume_place(deployments: Path, deployment: str, name: str) -> Path:
    """Say which directory holds one of a deployment's volumes on this host."""
    return deployments / deployment / "volumes" / name


def volume_directory(deployments: Path, spec: InstanceSpec, name: str) -> Path:
    """Make the directory that holds one of a deployment's volumes on this host."""
    directory = volume_place(deployments, spec.deployment, name)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@frozen
class RestoredVolume:
    """What is on record of a volume that an engine keeps, once it came out of a backup.

    It has a name of its own in the engine from then on: whatever bears its usual name may belong
    to the server that the backup was made of.

    Attributes:
        directory: Absent where it was never restored.
    """

    directory: Path

    @classmethod
    def of(cls, deployments: Path, deployment: str, name: str) -> RestoredVolume:
        """Say where the record of a deployment's volume is kept."""
        return cls(deployments / deployment / "engine" / name)

    @property
    def name_file(self) -> Path:
        """Holds its name in the engine."""
        return self.directory / "name"

    @property
    def tar(self) -> Path:
        """Holds what is in it until it was filled, before the first instance starts."""
        return self.directory / "restore.tar"

    def name(self) -> str:
        """Give its name in the engine; ``""`` where it was never restored."""
        try:
            return self.name_file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""


def remove_queue(queue_directory: str) -> bool:
    """Delete an instance's queue; tell whether it is gone."""
    shutil.rmtree(queue_directory, ignore_errors=True)
    return not os.path.lexists(queue_directory)


def environment(spec: InstanceSpec, agent_directory: str, queue_directory: str) -> dict[str, str]:
    """Give the variables that an instance sees, on any runtime.

    Args:
        agent_directory: Where the code lies, as the instance sees it.
        queue_directory: Likewise.
    """
    given = {
        "PLOINKY_AGENT": spec.agent,
        "PLOINKY_DOMAIN": spec.key.domain,
        "PLOINKY_PATH": spec.key.path,
        "PLOINKY_RELEASE": str(spec.release),
        "PLOINKY_TRANSPORT": spec.wire.value,
        "PLOINKY_CONCURRENCY": str(spec.concurrency),
    }
    ours = {"AGENT_DIR": agent_directory, "PLOINKY_QUEUE": queue_directory}
    return {**given, **spec.environment, **ours}
