"""The engines on the oldest and the newest program that they are for, beside this machine's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agentcore.running import ROOT

HERE = Path(__file__).parent


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "program",
    [
        pytest.param("node14", marks=pytest.mark.program("node14")),
        pytest.param("node26", marks=pytest.mark.program("node26")),
    ],
)
def test_engine_is_held_to_the_same_on(program: str, tmp_path: Path) -> None:
    """All tests of this room that are about Node, with another one on PATH."""
    found = shutil.which(program)
    assert found is not None
    (tmp_path / "node").symlink_to(Path(found).resolve())
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    version = subprocess.run(["node", "--version"], env=environment, capture_output=True, text=True)
    assert version.stdout.startswith(f"v{program.removeprefix('node')}.")
    command = [sys.executable, "-m", "pytest", str(HERE), "-k", "node", "-q", "--no-header"]
    command += ["-p", "no:cacheprovider", "--ignore", __file__]
    command += ["--ignore", str(HERE / "test_images.py")]  # those have a Node of their own
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-8000:]
