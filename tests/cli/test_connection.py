"""The connection file: which one holds, who may read it, and what a broken one says."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest

from ploinky.cli.connection import FILE, Connection, find, save
from ploinky.cli.failures import CONFIGURATION, CommandFailed


def test_the_nearest_file_holds(tmp_path: Path) -> None:
    """This directory's own, else one above, else the user's."""
    home, project = tmp_path / "home", tmp_path / "project"
    inner = project / "a" / "b"
    inner.mkdir(parents=True)
    home.mkdir()
    assert find(inner, home, {}).url == "http://localhost:8000"
    save(attrs.evolve(find(home, home, {}), url="http://home"))
    assert find(inner, home, {}).url == "http://home"
    save(attrs.evolve(find(project, project, {}), url="http://project"))
    assert find(inner, home, {}).url == "http://project"


def test_the_environment_wins(tmp_path: Path) -> None:
    """`PLOINKY_URL` and `PLOINKY_API_KEY` are for scripts."""
    found = find(tmp_path, tmp_path, {"PLOINKY_URL": "http://x/", "PLOINKY_API_KEY": "pk_1"})
    assert (found.url, found.token) == ("http://x", "pk_1")
    assert "pk_1" not in repr(found)


def test_a_session_goes_to_no_other_server(tmp_path: Path) -> None:
    """Whoever names another one for once does not hand it what opens the first."""
    save(Connection("http://mine:8000", "session", tmp_path / FILE))
    assert find(tmp_path, tmp_path, {"PLOINKY_URL": "http://mine:8000/"}).token == "session"
    assert find(tmp_path, tmp_path, {"PLOINKY_URL": "http://other:8000"}).token == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
def test_a_file_of_somebody_else_is_passed_over(tmp_path: Path) -> None:
    """Whoever puts one into a directory above ours would be sent our keys."""
    inner = tmp_path / "shared" / "mine"
    inner.mkdir(parents=True)
    save(attrs.evolve(find(inner.parent, inner, {}), url="http://strangers"))
    assert find(inner, inner, {}).url == "http://strangers"
    os.chown(inner.parent / ".ploinky" / "cloud.json", 4242, 4242)
    assert find(inner, inner, {}) == Connection("http://localhost:8000", path=inner / FILE)
    # Under sudo the user's own file holds.
    assert find(inner, inner, {"SUDO_UID": "4242"}).url == "http://strangers"
    assert find(inner, inner, {"SUDO_UID": "4243"}).url == "http://localhost:8000"


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """It holds a session token: 0600, whatever the umask."""
    save(find(tmp_path, tmp_path, {}))
    path = tmp_path / ".ploinky" / "cloud.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["cloud.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"url": 3}'])
def test_a_broken_file_is_named_with_the_way_out(tmp_path: Path, text: str) -> None:
    """The guide's own advice: remove it."""
    path = tmp_path / ".ploinky" / "cloud.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(CommandFailed) as caught:
        find(tmp_path, tmp_path, {})
    assert str(path) in caught.value.message
    assert "rm " in caught.value.hint
    assert caught.value.exit_status == CONFIGURATION
