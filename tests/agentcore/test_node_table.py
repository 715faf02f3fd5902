"""What the Node engine keeps its tasks in lets go of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

CHURN = Path(__file__).with_name("churn.js")


@pytest.mark.program("node")
def test_what_has_gone_is_garbage_at_once() -> None:
    """Not only when the whole heap is collected, which makes a busy agent halt again and again."""
    program = ["node", "--expose-gc", str(CHURN)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["size"] == 32
    assert found["grown"] < 4 << 20
