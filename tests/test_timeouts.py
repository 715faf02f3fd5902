"""A test that hangs is a failure that tells where, and those after it run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOOK = "from tests.timeouts import pytest_timeout_set_timer"
TESTS = """
import threading
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

async def never():
    await Deferred()  # here

@pytest_twisted.ensureDeferred
async def test_that_waits_in_a_coroutine():
    await never()

def test_that_waits_in_a_call():
    threading.Event().wait()  # here

@pytest_twisted.ensureDeferred
async def test_that_never_leaves_a_loop():
    await deferLater(reactor, 0)
    while True: ...  # here

@pytest.fixture
def stuck():
    yield
    pytest_twisted.blockon(Deferred())  # here

def test_that_waits_in_its_teardown(stuck): ...

late = Deferred()

@pytest.fixture
def tardy():
    yield
    pytest_twisted.blockon(deferLater(reactor, 0, late.callback, None))

@pytest_twisted.ensureDeferred
async def test_that_waits_for_what_comes_after_its_time(tardy):
    await late  # here

@pytest_twisted.ensureDeferred
async def test_the_last():
    await deferLater(reactor, 0)
"""


def test_those_that_hang_fail(tmp_path: Path) -> None:
    """However they do, each says where, and the last one passes."""
    (tmp_path / "conftest.py").write_text(HOOK)
    (tmp_path / "test_hang.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", str(tmp_path), "-c", "/dev/null", "--timeout=1"]
    ran = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True
    )
    for number, line in enumerate(TESTS.splitlines(), 1):
        assert "# here" not in line or f"test_hang.py:{number}" in ran.stdout
    assert ran.stdout.count("Timeout (>1.0s)") >= 5
    assert "4 failed, 2 passed, 1 error" in ran.stdout
