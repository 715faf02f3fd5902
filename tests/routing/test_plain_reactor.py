"""The reactor that workers run on, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from ploinky.routing.reactor import install
assert "twisted.internet.reactor" not in sys.modules
reactor = install()
from twisted.internet import reactor as installed
assert installed is reactor
from twisted.internet.protocol import Factory, Protocol, ClientFactory

heard = []

class Echo(Protocol):
    def dataReceived(self, data):
        if data == b"raise":
            raise RuntimeError("as told")
        self.transport.write(data)

class Client(Protocol):
    def __init__(self, says):
        self.says = says
        self.got = 0
    def connectionMade(self):
        self.transport.write(self.says)
    def dataReceived(self, data):
        self.got += len(data)
        if self.got == len(self.says):
            self.transport.loseConnection()
    def connectionLost(self, reason):
        heard.append((len(self.says), self.got))
        if len(heard) == 3:
            reactor.stop()

def client(says):
    factory = ClientFactory()
    factory.noisy = False
    factory.buildProtocol = lambda addr: Client(says)
    return factory

port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
for says in (b"hello", b"x" * 5000000, b"raise"):
    reactor.connectTCP("127.0.0.1", port.getHost().port, client(says))
reactor.callLater(20, reactor.stop)
reactor.run()
print(sorted(heard))
"""


def test_connections_live_and_end_as_on_the_stock_reactor() -> None:
    """Data of any size goes both ways, and an error costs one connection only."""
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stderr.count("Traceback") == 1
    assert "RuntimeError: as told" in ran.stderr
    assert ran.stdout == "[(5, 0), (5, 5), (5000000, 5000000)]\n"


def test_importing_it_installs_nothing() -> None:
    """The worker's root decides."""
    code = "import sys, ploinky.routing.reactor; print('twisted.internet.reactor' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "False\n"
