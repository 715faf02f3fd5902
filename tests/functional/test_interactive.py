"""`p-cli` alone at a terminal: what a person types at its prompt, and reads."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.functional.agents import PYTHON
from tests.functional.conftest import P_CLI, Server, git_repository

AT_PROMPT = r">\x1b\["
"""The end of a prompt, as it is drawn."""


class Terminal:
    """A person at a terminal of their own."""

    def __init__(self, server: Server, **environment: str) -> None:
        plain = {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", "NO_COLOR": "1"}
        self._child = pexpect.spawn(
            P_CLI[0],
            cwd=str(server.directory),
            env={**server.environment, **plain, **environment},
            encoding="utf-8",
            timeout=20,
            dimensions=(50, 150),
        )

    def sees(self, *texts: str) -> None:
        """Wait until these have appeared, one after the other."""
        for text in texts:
            self._child.expect(text)

    def types(self, keys: str) -> None:
        """Press keys; `\\r` is Enter, `\\t` Tab."""
        self._child.send(keys)

    def presses_ctrl(self, key: str) -> None:
        """Hold Ctrl and press a key."""
        self._child.sendcontrol(key)

    def leaves(self) -> int:
        """Wait for the end; give the exit status."""
        self._child.expect(pexpect.EOF)
        self._child.close()
        status: int = self._child.exitstatus
        return status

    def close(self) -> None:
        """End what a test has left."""
        self._child.close(force=True)


@pytest.fixture
def sit_down(own_server: Server) -> Iterator[Callable[..., Terminal]]:
    """Gives people at terminals, in the server's directory."""
    terminals: list[Terminal] = []

    def start(**environment: Any) -> Terminal:
        terminals.append(Terminal(own_server, **environment))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


def history_of(server: Server) -> Path:
    return server.directory / ".local/state/ploinky/history"


def test_a_session(own_server: Server, sit_down: Callable[..., Terminal], tmp_path: Path) -> None:
    """Live names are completed, errors do not end it, params go over lines, it ends on Ctrl-D."""
    own_server.start()
    own_server.deploy("/parrot", git_repository(tmp_path / "agent", PYTHON))
    place = own_server.url.removeprefix("http://")
    terminal = sit_down()
    terminal.sees(f"Admin@{place}")
    terminal.types("deploym\t")
    terminal.sees("ents")
    terminal.types(" show local\t")
    terminal.sees("host")
    terminal.types(" /par\t")
    terminal.sees("rot")
    terminal.types("\r")
    terminal.sees("domain.*localhost", "path.*/parrot", AT_PROMPT)
    terminal.types("p-cli cloud undeploy localhost /nowhere\r")
    terminal.sees(
        "nothing is deployed at localhost/nowhere", "p-cli cloud deployments", r"\[1\] ", AT_PROMPT
    )
    terminal.types("call /parrot hello --params '[\r")
    terminal.sees(r"\.\.\.")
    terminal.types('"two lines"]\'\r')
    terminal.sees('{"message": "Hello two lines"}', AT_PROMPT)
    terminal.types("undeploy never-run")
    terminal.sees("never-run")
    terminal.presses_ctrl("c")
    terminal.types("help rollback\r")
    terminal.sees("Usage: p-cli cloud rollback", AT_PROMPT)
    terminal.types("call /parrot junk\r")
    terminal.sees("true", AT_PROMPT)
    terminal.types("deployments logs localhost /parrot --follow\r")
    terminal.sees("<<< junk")
    terminal.presses_ctrl("c")
    terminal.sees("Stopped", r"\[130\] ", AT_PROMPT)
    terminal.presses_ctrl("d")
    assert terminal.leaves() == 0


def test_what_is_pasted_from_a_manual_runs(
    own_server: Server, sit_down: Callable[..., Terminal]
) -> None:
    """Several lines with comments are several commands."""
    own_server.start()
    terminal = sit_down()
    terminal.sees("Admin@")
    pasted = "# List the domains\np-cli cloud host add \\\n  a.example   # a new one\nhost list"
    terminal.types(f"\x1b[200~{pasted}\x1b[201~\r")
    terminal.sees("Domain a.example added", r"a.example +yes", AT_PROMPT)
    terminal.types("exit\r")
    assert terminal.leaves() == 0


def test_history_is_kept_without_secrets(
    own_server: Server, sit_down: Callable[..., Terminal]
) -> None:
    """For its owner alone, and there in the next session."""
    own_server.start()
    secret = [
        f"login {own_server.key}",
        "deploy localhost /x x --secret TOKEN=needle",
        "deploy localhost /x x --env API_KEY=needle",
        "init --token needle",
    ]
    first = sit_down()
    first.sees("Admin@")
    for line in (*secret, "host list"):
        first.types(f"{line}\r")
        first.sees(line.split()[-1], AT_PROMPT)
    first.types("quit\r")
    assert first.leaves() == 0
    path = history_of(own_server)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = path.read_text()
    assert "host list" in kept
    assert "needle" not in kept
    assert own_server.key not in kept
    second = sit_down()
    second.sees("Admin@")
    second.types("\x1b[A\x1b[A")  # up: quit, then the line before
    second.sees("host list")
    second.types("\r")
    second.sees("localhost +yes", AT_PROMPT)


def test_without_a_server_nothing_waits_and_nothing_breaks(
    own_server: Server, sit_down: Callable[..., Terminal]
) -> None:
    """Not the prompt, not completion; the first command says what to do."""
    terminal = sit_down(PLOINKY_URL="http://127.0.0.1:9")
    terminal.sees(r"127.0.0.1:9 \(away\)")
    terminal.types("deployments show local\t")
    terminal.types("host\t \t/x\r")
    terminal.sees("no connection to http://127.0.0.1:9", "p-cli cloud start", r"\[2\] ", AT_PROMPT)
    terminal.types("deplo\t")
    terminal.sees("undeploy|deployments")
    terminal.presses_ctrl("c")
    terminal.presses_ctrl("d")
    assert terminal.leaves() == 0


def test_debug_shows_more_and_goes_on(
    own_server: Server, sit_down: Callable[..., Terminal]
) -> None:
    """A traceback of what went wrong; the session stays."""
    terminal = sit_down(PLOINKY_URL="http://127.0.0.1:9", DEBUG="1")
    terminal.sees("away")
    terminal.types("health\r")
    terminal.sees("Traceback", "no connection", r"\[2\] ", AT_PROMPT)
    terminal.presses_ctrl("d")
    assert terminal.leaves() == 0


def test_a_home_that_cannot_be_written_keeps_no_history(
    own_server: Server, sit_down: Callable[..., Terminal]
) -> None:
    """It is said once, and the session goes on."""
    terminal = sit_down(XDG_STATE_HOME="/proc/nowhere", PLOINKY_URL="http://127.0.0.1:9")
    terminal.sees("No history is kept", "away")
    terminal.types("help\r")
    terminal.sees("Ctrl-D", AT_PROMPT)
    terminal.presses_ctrl("d")
    assert terminal.leaves() == 0


def test_alone_without_a_terminal_it_gives_help(own_server: Server) -> None:
    """Nobody is there to be asked; what is piped in is not run by accident."""
    done = own_server.p_cli(check=False, stdin="cloud destroy --yes\n")
    assert done.returncode == 5
    assert "Usage: p-cli" in done.stdout
    assert "terminal" in done.stderr
