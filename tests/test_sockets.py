"""Socket paths of any length."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ConnectError, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol

from ploinky.sockets import LONGEST_SOCKET_PATH, SocketPaths
from ploinky.values import Address


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


async def test_a_link_in_place_of_a_socket_leads_nowhere(tmp_path: Path) -> None:
    """An agent, which writes there, would have the server speak to any socket of its host."""
    port = reactor.listenUNIX(str(tmp_path / "other.sock"), Factory.forProtocol(Protocol))
    (tmp_path / "run" / "one").mkdir(parents=True)
    link = tmp_path / "run" / "one" / "agent.sock"
    link.symlink_to("../../other.sock")
    paths = SocketPaths(str(tmp_path / "run"))
    with pytest.raises(ConnectionRefusedError):
        await connect(paths, link)
    link.unlink()
    with pytest.raises(ConnectError, match="No such file"):
        await connect(paths, link)
    os.link(tmp_path / "other.sock", link)
    made = await connect(paths, link)
    made.transport.abortConnection()
    await maybeDeferred(port.stopListening)
    paths.close()


async def test_a_link_elsewhere_is_its_owners(tmp_path: Path) -> None:
    """An admin may name one that leads to what runs."""
    port = reactor.listenUNIX(str(tmp_path / "real.sock"), Factory.forProtocol(Protocol))
    (tmp_path / "run").mkdir()
    (tmp_path / "named.sock").symlink_to("real.sock")
    paths = SocketPaths(str(tmp_path / "run"))
    made = await connect(paths, tmp_path / "named.sock")
    made.transport.abortConnection()
    await maybeDeferred(port.stopListening)
    paths.close()


async def connect(paths: SocketPaths, path: Path) -> Any:
    """Connect, and leave no descriptor behind that was needed for it."""
    before = set(os.listdir("/proc/self/fd"))
    endpoint = paths.endpoint(reactor, Address(path=str(path)), 5.0)
    try:
        made = await endpoint.connect(Factory.forProtocol(Protocol))
    except ConnectError:
        assert set(os.listdir("/proc/self/fd")) == before
        raise
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 2  # both ends are in this process
    return made
