"""Socket paths of any length."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ploinky.sockets import LONGEST_SOCKET_PATH, SocketPaths


def test_a_socket_deep_in_the_tree_can_be_served_and_reached(tmp_path: Path) -> None:
    """A data directory may lie deeper than the kernel's 107 bytes allow."""
    deep = tmp_path / ("d" * 120) / "run"
    (deep / "i").mkdir(parents=True)
    paths = SocketPaths(str(deep))
    name = str(deep / "i" / "agent.sock")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(paths.usable(name))
        server.listen()
        client.connect(paths.usable(name))
        assert Path(name).is_socket()
    paths.close()
    paths.close()


def test_a_short_path_stays_as_it_is(tmp_path: Path) -> None:
    """No detour where none is needed."""
    paths = SocketPaths(str(tmp_path))
    assert paths.usable("/run/x.sock") == "/run/x.sock"
    paths.close()


def test_a_long_path_elsewhere_is_refused(tmp_path: Path) -> None:
    """The message says how long it may be."""
    paths = SocketPaths(str(tmp_path))
    with pytest.raises(ValueError, match=str(LONGEST_SOCKET_PATH)):
        paths.usable("/" + "x" * 200)
    paths.close()
