"""`p-cli cloud start --foreground`: what a person sees of a server that stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def test_it_says_where_it_serves_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    """State changes as short lines, no framework chatter, and the end on SIGINT."""
    program = str(Path(sys.executable).with_name("p-cli"))
    command = [program, "cloud", "start", "--foreground", "--port=0", "--workers=1"]
    with subprocess.Popen(
        [*command, "--runtime=process"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},
    ) as server:
        assert server.stdout is not None
        said = []
        for line in server.stdout:
            said.append(line)
            if "serves http://" in line:
                server.send_signal(signal.SIGINT)
        server.wait(60)
    text = "".join(said)
    assert "agents run on process" in text
    assert "Starting factory" not in text
    assert "Traceback" not in text
