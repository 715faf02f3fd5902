"""Bubblewrap: an agent's own view of this host, where the kernel lets us make one.

Separate processes, IPC and host name; of the files only what programs need, read-only; the
network is shared.  Source: bwrap(1).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from ploinky.runtime.places import AGENT_DIRECTORY, AGENTCORE_DIRECTORY

CHECK_SECONDS = 5.0
GENERATIONS = 2
"""From the outer bwrap, which we start, by the one that is process 1 inside, to the program."""

SYSTEM = ("bin", "gnu", "lib", "lib32", "lib64", "libx32", "nix", "opt", "sbin", "sys", "usr")
"""Of the root directory, what programs are made of."""
CONFIGURATION = (
    *("alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "pki", "ssl"),
    *("gai.conf", "host.conf", "hosts", "nsswitch.conf", "protocols", "resolv.conf", "services"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "localtime", "timezone"),
    *("fonts", "group", "mime.types", "os-release", "passwd"),
)
"""Of ``/etc``, what programs read; what is left has keys and password hashes in it."""
TOOLS = ("node", "python3", "python")
_UNSHARED = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")


@frozen
class Sandbox:
    """How programs are wrapped.

    Attributes:
        program: Path of ``bwrap``.
        search_path: ``PATH`` as agents have it.
        hidden: Directories that nobody inside may see: the server's own data.
    """

    program: str
    search_path: str
    hidden: tuple[str, ...]

    def wrap(
        self,
        argv: Sequence[str],
        mounts: Sequence[tuple[str, str]],
        agentcore: Path,
        directory: str,
    ) -> list[str]:
        """Give the command that runs ``argv`` inside.

        Args:
            mounts: (here, inside) of what it may write to.
            agentcore: Mounted read-only.
            directory: Working directory inside.
        """
        wrapped = [self.program, *_UNSHARED, "--cap-drop", "ALL", *_system()]
        for tool_directory in _tools(self.search_path):
            wrapped += ["--ro-bind-try", tool_directory, tool_directory]
        for hidden in self.hidden:
            wrapped += ["--tmpfs", hidden]
        wrapped += ["--dir", AGENT_DIRECTORY, "--ro-bind", str(agentcore), AGENTCORE_DIRECTORY]
        for here, inside in mounts:
            wrapped += ["--bind", here, inside]
        return [*wrapped, "--remount-ro", "/", "--chdir", directory, "--", *argv]


def _system() -> list[str]:
    """The root directory: what programs need of ours, and fresh ones of the rest."""
    options: list[str] = []
    for name in SYSTEM:
        place = f"/{name}"
        if os.path.islink(place):
            options += ["--symlink", os.readlink(place), place]
        else:
            options += ["--ro-bind-try", place, place]
    for name in CONFIGURATION:
        options += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return [*options, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", "/run"]  # noqa: S108


def _is_system(path: str) -> bool:
    return path.split("/")[1] in SYSTEM


def _tools(search_path: str) -> list[str]:
    """Give the directories that tools on the path need although they lie elsewhere.

    A program in ``.../bin`` has its libraries beside that, and where it is a link (as in a
    virtual environment) so has what it leads to.  In a home's own ``bin`` or ``.local/bin`` it
    stands alone, and what lies beside is private.
    """
    needed: dict[str, None] = {}
    for entry in search_path.split(os.pathsep):
        if not entry.startswith("/") or not os.path.isdir(entry):
            continue
        found = [entry]
        for name in TOOLS:
            program = os.path.join(entry, name)
            if os.path.exists(program):
                found.append(os.path.dirname(os.path.realpath(program)))
        needed |= dict.fromkeys(_with_libraries(each) for each in found if not _is_system(each))
    return list(needed)


def _with_libraries(directory: str) -> str:
    above = os.path.dirname(directory.rstrip("/"))
    alone = above == os.path.expanduser("~") or above.endswith("/.local") or above.count("/") < 2
    return directory if alone else above


def find_sandbox(
    environment: Mapping[str, str], hidden: Sequence[str]
) -> tuple[Sandbox | None, str]:
    """Find bubblewrap and try it: kernels and containers may forbid what it does.  Blocking.

    Returns:
        It, or None and why not.
    """
    search_path = environment.get("PATH", os.defpath)
    program = shutil.which("bwrap", path=search_path)
    if program is None:
        return None, "bubblewrap (the program bwrap) is not installed"
    sandbox = Sandbox(program, search_path, tuple(hidden))
    trial = [program, *_UNSHARED, "--cap-drop", "ALL", *_system(), "--", "/bin/sh", "-c", ":"]
    try:
        done = subprocess.run(
            trial, env={}, capture_output=True, timeout=CHECK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"bubblewrap does not work here: {error}"
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        return None, f"bubblewrap does not work here: {said}"
    return sandbox, ""


def is_wrapped(pid: int) -> bool:
    """Tell whether a process is an outer ``bwrap``."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "bwrap"
    except OSError:
        return False
