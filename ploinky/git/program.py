"""Running git: the world it sees, the limits it has, how it ends.

Arguments and a `Bounds` enter; standard output leaves, or `GitFailed` with
what git said.  GitPython starts the process, and is imported here alone.  Git
sees no configuration but ours, no prompt, no hook, no agent and no variable of
the server's own that could change what it does.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from ploinky.git.bounds import Bounds

if TYPE_CHECKING:
    from git.cmd import Git

_TICK_SECONDS = 0.1
_WATCH_SECONDS = 0.2
_MOST_SAID = 16 * 1024
_NOT_STARTED = (126, 127)  # env(1): it may not be run, it is not there

_ENVIRONMENT = {
    "LANGUAGE": "C",
    "LC_ALL": "C",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_ALLOW_PROTOCOL": "",
}

_KEPT = frozenset(
    [
        "PATH",
        "TMPDIR",
        "http_proxy",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "GIT_SSL_CAINFO",
        "GIT_SSL_CAPATH",
    ]
)
"""The server's variables that git may see: how to get out, and whom to trust there."""

_CONFIG = """\
# Written by the server at every start.  The only configuration its git reads.
[core]
	hooksPath = /dev/null
	fsmonitor = false
	attributesFile = /dev/null
	excludesFile = /dev/null
	autocrlf = false
	symlinks = true
	protectHFS = true
	protectNTFS = true
[safe]
	directory = *
[protocol]
	allow = never
[http]
	followRedirects = initial
	lowSpeedLimit = 1024
	lowSpeedTime = 60
[fetch]
	unpackLimit = 1
	recurseSubmodules = false
[submodule]
	recurse = false
[gc]
	autoDetach = false
	autoPackLimit = 20
[maintenance]
	auto = false
[advice]
	detachedHead = false
"""


class GitFailed(Exception):
    """Git exited non-zero.

    Attributes:
        said: The end of its standard error.
    """

    def __init__(self, command: str, exit_code: int, said: str) -> None:
        super().__init__(f"git {command} exited with {exit_code}")
        self.command = command
        self.exit_code = exit_code
        self.said = said


class GitMissing(Exception):
    """There is no git on this machine, or it does not start."""


@frozen
class Access:
    """A credential in the form in which one run of git is lent it.

    Attributes:
        options: For git itself, before the command; no secrets.
        environment: Variables; no secrets.
        descriptors: Inherited by git and what it starts.
    """

    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(factory=dict)
    descriptors: tuple[int, ...] = ()


NO_ACCESS = Access()


class GitProgram:
    """The git on this machine.

    Args:
        directory: Private to this room; its configuration file is kept there.
        program: Name or path.
    """

    def __init__(self, directory: Path, program: str = "git") -> None:
        self._program = program
        self._config = directory / "gitconfig"

    def prepare(self) -> None:
        """Write the configuration.  Before the first `run`."""
        fresh = self._config.with_suffix(".new")
        fresh.write_text(_CONFIG)
        fresh.replace(self._config)

    def run(
        self,
        arguments: Sequence[str],
        bounds: Bounds,
        *,
        access: Access = NO_ACCESS,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        take: Callable[[bytes], None] | None = None,
        watch: Callable[[], None] | None = None,
        started: Callable[[int], None] | None = None,
    ) -> bytes:
        """Run git to its end, or end it.

        Whatever makes this return or raise, git and all that it started are gone by then.

        Args:
            arguments: What stands after `git`.
            take: Is given standard output as it comes, instead of collecting it.
            watch: Is called several times a second; what it raises ends git.
            started: Is given the process group's id.

        Returns:
            Standard output; ``b""`` where ``take`` had it.

        Raises:
            GitFailed, GitMissing, Abandoned, OutOfTime, and what the callables raise.
        """
        bounds.check()
        said = bytearray()
        output = bytearray()
        child = self._start([*access.options, *arguments], access, environment or {}, stdin)
        try:
            if started:
                started(child.pid)
            _pump(child, take or output.extend, said, bounds, watch)
        finally:
            _end(child)
        if child.returncode:
            text = bytes(said).decode(errors="replace")
            if child.returncode in _NOT_STARTED and text.startswith("env:"):
                raise GitMissing(text.strip())
            raise GitFailed(_command(arguments), child.returncode, text)
        return bytes(output)

    def _start(
        self,
        arguments: Sequence[str],
        access: Access,
        environment: Mapping[str, str],
        stdin: bytes,
    ) -> subprocess.Popen[bytes]:
        ours = {**_ENVIRONMENT, **access.environment, **environment}
        ours["GIT_CONFIG_GLOBAL"] = str(self._config)
        # GitPython always hands on the server's environment; env(1) takes away what git
        # must not see.  Only names are in the argv, and only until git replaces it.
        kept = _KEPT | ours.keys()
        unset = [word for name in os.environ if name not in kept for word in ("-u", name)]
        with tempfile.TemporaryFile() if stdin else nullcontext() as source:
            if source:
                source.write(stdin)
                source.seek(0)
            try:
                child = _gitpython()("/").execute(
                    ["env", *unset, self._program, *arguments],
                    istream=source,
                    as_process=True,
                    env=ours,
                    start_new_session=True,
                    pass_fds=access.descriptors,
                )
            except OSError as error:
                raise GitMissing(str(error)) from error
        process = child.proc
        assert process is not None
        child.proc = None  # ours to end, and its whole group with it
        return process


def _command(arguments: Sequence[str]) -> str:
    return next((word for word in arguments if not word.startswith("-")), "")


def _gitpython() -> type[Git]:
    """Import GitPython on first use: it starts git when imported, and fails where there is none."""
    try:
        from git.cmd import Git
    except ImportError as error:
        raise GitMissing(str(error)) from error
    return Git


def _pump(
    child: subprocess.Popen[bytes],
    take: Callable[[bytes], None],
    said: bytearray,
    bounds: Bounds,
    watch: Callable[[], None] | None,
) -> None:
    """Read both outputs until they end and the process has exited, without reaping it."""
    assert child.stdout is not None
    assert child.stderr is not None
    stdout, stderr, ended = child.stdout.fileno(), child.stderr.fileno(), os.pidfd_open(child.pid)
    watched_at = bounds.now()
    try:
        with selectors.DefaultSelector() as selector:
            for descriptor in (stdout, stderr, ended):
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select(_TICK_SECONDS):
                    data = b"" if key.fd == ended else os.read(key.fd, 65536)
                    if not data:
                        selector.unregister(key.fd)
                    elif key.fd == stdout:
                        take(data)
                    else:
                        said += data
                        del said[:-_MOST_SAID]
                bounds.check()
                if watch and bounds.now() - watched_at >= _WATCH_SECONDS:
                    watch()
                    watched_at = bounds.now()
    finally:
        os.close(ended)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process's group and reap it."""
    # Unreaped, it keeps its id, and so its group's, from being given to another.
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdout, child.stderr):
        if pipe:
            pipe.close()
