"""``p-cli cloud start`` and `stop`: the server on this machine, as a process."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import requests

from ploinky.cli import output
from ploinky.cli.failures import CONFIGURATION, CONNECTION, ERROR, CommandFailed
from ploinky.cli.shared import json_option
from ploinky.pids import start_time
from ploinky.settings import DATA_DIRECTORY

_POLL_SECONDS = 0.05
_START_SECONDS = 60.0
_STOP_SECONDS = 90.0
# Without the directory it is run in: a module of a user's there must not shadow one of ours.
_TWISTD = "import sys; sys.path.remove(''); from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"

directory_option = click.option(
    "--dir",
    "directory",
    envvar="PLOINKY_CLOUD_DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("."),
    help="Where the server keeps its data [default: this directory; or PLOINKY_CLOUD_DIR].",
)


def _leader(directory: Path) -> dict[str, Any] | None:
    """Read what a running leader says of itself; None where none runs.

    One that was killed leaves its word behind, for whichever process gets its pid.

    Raises:
        CommandFailed: The directory is another user's.
    """
    place = directory / DATA_DIRECTORY / "run" / "leader.json"
    try:
        leader: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        found = start_time(leader["pid"])
    except PermissionError as error:
        raise CommandFailed(
            f"{place} cannot be read: {error.strerror}",
            hint="it is another user's; choose a directory of your own with --dir",
            exit_code=CONFIGURATION,
        ) from error
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        if not found:
            os.kill(leader["pid"], 0)
            return None  # it has ended, and nobody has asked yet how
    except PermissionError:
        return leader  # another user's, and out of sight
    except OSError:
        return None
    return leader if leader.get("start_time", found) == found else None


def _url(leader: Mapping[str, Any]) -> str:
    host = leader.get("host") or "localhost"
    if host in ("0.0.0.0", "::", "127.0.0.1", "::1"):  # noqa: S104 - compared, not bound
        host = "localhost"
    return f"http://{host}:{leader['port']}"


@click.command()
@click.option("--port", help="Public port; 0 takes a free one  [default: 8000; or PORT].")
@click.option("--host", help="Address to listen on  [default: 127.0.0.1; 0.0.0.0 for everybody].")
@directory_option
@click.option("--workers", help="Worker processes, or auto for one per core  [default: auto].")
@click.option("--runtime", help="docker, podman, process or auto  [or CONTAINER_RUNTIME].")
@click.option("--foreground", is_flag=True, help="Stay, and log here; Ctrl-C ends it.")
@json_option
def start(directory: Path, foreground: bool, want_json: bool, **options: str | None) -> None:
    """Start a server; returns once it answers."""
    directory = directory.absolute()
    running = _leader(directory)
    if running is not None:
        raise CommandFailed(
            f"a server runs on {directory} already: pid {running['pid']}, {_url(running)}",
            hint="stop it with: p-cli cloud stop   or choose another directory with --dir",
        )
    observer = "to_terminal" if foreground else "to_nowhere"
    command = [sys.executable, "-c", _TWISTD, "--nodaemon", "--pidfile="]
    command += [f"--logger=ploinky.telemetry.events.{observer}", "ploinky", f"--dir={directory}"]
    command += [f"--{name}={value}" for name, value in options.items() if value is not None]
    if foreground and click.get_current_context().obj is not None:
        raise CommandFailed(
            "a server in the foreground would take this session's place",
            hint="leave with Ctrl-D first, or start it without --foreground",
        )
    if foreground:
        sys.stdout.flush()
        os.execv(command[0], command)  # noqa: S606 - our own interpreter, our own argv
    leader = _start_and_wait(command, directory)
    if want_json:
        output.as_json({"url": _url(leader), **leader})
        return
    click.echo(f"Server:    {_url(leader)}")
    click.echo(f"Dashboard: {_url(leader)}/management")
    click.echo(f"Logs:      {directory / DATA_DIRECTORY / 'logs'}")
    if leader.get("notice"):
        click.echo(leader["notice"])


def _start_and_wait(command: list[str], directory: Path) -> dict[str, Any]:
    log = directory / DATA_DIRECTORY / "logs" / "start.log"
    try:
        (directory / DATA_DIRECTORY).mkdir(mode=0o700, parents=True, exist_ok=True)
        log.parent.mkdir(mode=0o700, exist_ok=True)
        said = log.open("w+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise CommandFailed(
            f"{directory} cannot be written to: {error.strerror}",
            hint="choose another place: p-cli cloud start --dir PLACE",
            exit_code=CONFIGURATION,
        ) from error
    with said:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a new server says its bootstrap token there
            stderr=said,
            start_new_session=True,
            cwd=directory,
        )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_POLL_SECONDS)
                raise _could_not_start(child.returncode, log)
            leader = _leader(directory)
            if leader is not None and leader["pid"] == child.pid and _answers(_url(leader)):
                return leader
    raise CommandFailed(
        f"the server (pid {child.pid}) does not answer after {_START_SECONDS:.0f} s",
        hint=f"see {log}",
        exit_code=CONNECTION,
    )


def _could_not_start(status: int, log: Path) -> CommandFailed:
    said = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not said and shutil.disk_usage(log.parent).free == 0:
        return CommandFailed(
            f"the server could not start: no room is left on the disk of {log.parent}",
            hint="make room on it; with the server's own old logs, if need be",
        )
    return CommandFailed(
        "the server could not start",
        output="\n".join(said[-20:]),
        hint=f"all of what it said: {log}",
        exit_code=status if status in (ERROR, CONNECTION, CONFIGURATION) else ERROR,
    )


def _answers(url: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"{url}/management/api/health", timeout=2).status_code < 500
    return False


@click.command()
@directory_option
@json_option
def url(directory: Path, want_json: bool) -> None:
    """Print the address of this directory's server."""
    leader = _leader(directory.absolute())
    if leader is None:
        raise _nothing_runs(directory)
    output.done({"url": _url(leader)}, want_json, _url(leader))


@click.command()
@directory_option
@json_option
def stop(directory: Path, want_json: bool) -> None:
    """Stop the server.  Calls in hand are finished, containers go on running."""
    leader = _leader(directory.absolute())
    if leader is None:
        raise _nothing_runs(directory)
    pid = leader["pid"]
    try:
        process = os.pidfd_open(pid)
        try:
            os.kill(pid, 15)
            ended, _, _ = select.select([process], [], [], _STOP_SECONDS)
        finally:
            os.close(process)
    except ProcessLookupError:
        ended = [pid]
    except PermissionError as error:
        raise CommandFailed(f"the server (pid {pid}) belongs to another user") from error
    if not ended:
        raise CommandFailed(f"the server (pid {pid}) still runs after {_STOP_SECONDS:.0f} s")
    words = "Stopped.  Containers go on running; the next start finds them again."
    output.done({"success": True, "pid": pid}, want_json, words)


def _nothing_runs(directory: Path) -> CommandFailed:
    return CommandFailed(
        f"no server runs on {directory.absolute()}",
        hint="start one: p-cli cloud start   or name its directory with --dir",
    )


COMMANDS = (start, stop, url)
