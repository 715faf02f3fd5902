"""What is done to a data directory without a server: a program of the server's own does it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ploinky.cli.failures import CommandFailed

_RUN = "import runpy, sys; sys.path.remove(''); runpy.run_module('ploinky.maintenance', run_name='__main__', alter_sys=True)"


def run_offline(work: str, directory: Path, *arguments: str, **options: Any) -> Any:
    """Run ``ploinky.maintenance`` on a directory and give what it found.

    Args:
        options: What nobody else on this machine is to see: they go the way of a pipe.

    Raises:
        CommandFailed: It could not; with its own words.
    """
    command = [sys.executable, "-c", _RUN, work, str(directory.absolute()), *arguments]
    if options:
        command.append("-")
    told = json.dumps(options)
    done = subprocess.run(command, input=told, capture_output=True, text=True)
    if done.stdout.strip():
        return json.loads(done.stdout)
    running = "runs on" in done.stderr or "running" in done.stderr
    raise CommandFailed(
        done.stderr.strip() or f"it ended with status {done.returncode}",
        hint="stop the server first: p-cli cloud stop" if running else "",
        exit_code=done.returncode or 1,
    )
