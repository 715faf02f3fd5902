"""Upgrades: a connection that stops being HTTP, such as a WebSocket (RFC 9110, 7.8).

A request that asks for another protocol enters; the agent's 101 leaves, held to what was asked,
and after it both sides' bytes as they come, with each side's end carried over to the other.
This module knows no route.  Each such request has a connection of its own, as it can be used
for nothing else afterwards.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha1
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ploinky.errors import AgentBroken, AgentCutShort, AgentLeft, CallFailed
from ploinky.interfaces import IExchange
from ploinky.routing.beginnings import refuse_no_answer
from ploinky.routing.bodies import BadFraming, Body, UntilCloseBody
from ploinky.routing.halfclose import hung_up
from ploinky.routing.http import (
    HOP_BY_HOP,
    MOST_INTERIM,
    Field,
    Limits,
    RequestHead,
    answer_of,
    answer_parts,
    body_of,
    end_of_head,
    options_of,
)
from ploinky.routing.patience import why_not_connected
from ploinky.routing.streams import FULL_BYTES, Outlet, read_no_more

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PROTOCOL = re.compile(rb"%b(?:/%b)?\Z" % (_TOKEN, _TOKEN))
_NEVER = re.compile(rb"(?:h2c?|http|tls)(?:/.*)?\Z", re.IGNORECASE)
"""Protocols in which a client could make requests that nobody here reads."""

_WEBSOCKET_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def protocols_asked(head: RequestHead) -> bytes:
    """Give the ``Upgrade`` field that an agent gets; ``b""`` where the wish is not followed.

    It is followed for HTTP/1.1 requests without a body, and for what is a protocol of its own:
    not for HTTP/2 and TLS, in which a client could reach past the route it was let in to.
    """
    if b"upgrade" not in head.options or not head.http_11 or head.length != 0:
        return b""
    lines = [value for name, _, value in head.fields if name == b"upgrade"]
    asked = (one.strip(b" \t") for one in b",".join(lines).split(b","))
    return b", ".join(one for one in asked if _PROTOCOL.match(one) and not _NEVER.match(one))


@implementer(IExchange, IHalfCloseableProtocol)
class UpgradeExchange(Protocol):
    """One request for another protocol, and the agent's end of what comes of it.

    Args:
        head: As it is sent, with its empty line.
        asked: What `protocols_asked` gave.
        key: The request's ``Sec-WebSocket-Key``, or ``b""``.
        answer: Provides `IUpgradeAnswer`; where it is an ``IPushProducer``, it is paused while
            the agent takes the client's bytes more slowly than they come.
        ended: Called once, when this connection's descriptor is free again.
    """

    transport: Any
    _outlet: Outlet | None = None
    _connecting: Deferred[Any] | None = None
    _body: Body | None = None
    _over = False
    _switched = False
    _answering = False
    _paused = False
    _body_held = False
    _client_ended = False
    _agent_ended = False
    _held = b""
    _interim = 0

    def __init__(
        self,
        head: bytes,
        asked: bytes,
        key: bytes,
        limits: Limits,
        answer: Any,
        ended: Callable[[], None],
    ) -> None:
        self._head = head
        self._asked = asked
        self._key = key
        self._limits = limits
        self._answer = answer
        self._ended = ended

    def connect(self, endpoint: IStreamClientEndpoint) -> None:
        """Begin; call it once."""
        self._connecting = connecting = endpoint.connect(_Only(self))
        connecting.addCallbacks(self._connected, self._not_connected)

    # --- IExchange: what the call says

    def write(self, chunk: bytes) -> None:
        """Pass on what the client sends; see `IExchange.write`."""
        outlet = self._outlet
        if self._over or outlet is None:
            return
        outlet.send(chunk)
        if outlet.queued > FULL_BYTES and not self._body_held:
            self._body_held = True
            self._answer.pauseProducing()

    def finish(self) -> None:
        """The client will send nothing more: the agent is told the same way."""
        if not self._over and not self._client_ended:
            self._client_ended = True
            self._end_half()

    def cancel(self) -> None:
        """Close both halves; see `IExchange.cancel`."""
        if self._over:
            return
        self._over = True
        if self._outlet is not None:
            self.transport.abortConnection()
        elif self._connecting is not None:
            self._connecting.cancel()

    def pause(self) -> None:
        """Read no further; see `IExchange.pause`."""
        self._paused = True
        if self._outlet is not None:
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        if self._outlet is not None and not self._over and not self._agent_ended:
            self.transport.resumeProducing()

    # --- what Twisted says

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self._outlet = Outlet(self.transport, self.dataReceived, self._moved)
        self.transport.protocol = self  # without the endpoint's wrapper
        self._outlet.send(self._head)

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        try:
            if self._switched:
                self._answer.data(data)
            elif self._answering:
                self._read_body(data)
            else:
                self._read_head(self._held + data)
        except AgentBroken as error:
            self._fail(error)
        except BadFraming as error:
            self._fail(AgentBroken(f"the agent's answer is broken: {error}"))

    def readConnectionLost(self) -> None:
        if self._over:
            return
        if not self._switched or hung_up(self.transport):
            self._close(True)
        elif not self._agent_ended:
            self._agent_ended = True
            if self._client_ended:
                self._end_half()
            else:
                self._answer.half_closed()

    def writeConnectionLost(self) -> None: ...

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        read_no_more(self.transport)
        self._ended()
        self._close(reason.check(ConnectionDone) is not None)

    # --- within

    def _connected(self, _: Any) -> None:
        self._connecting = None
        if self._over:
            self.transport.abortConnection()
        elif self._paused:
            self.transport.pauseProducing()

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        self._ended()
        if failure.check(CancelledError) is None or not self._over:
            self._fail(why_not_connected(failure))

    def _read_head(self, data: bytes) -> None:
        while True:
            end = end_of_head(data)
            if end < 0:
                refuse_no_answer(data, 0, self._limits)
                self._held = data
                return
            status, http_11, fields = answer_parts(data[:end], self._limits)
            data = data[end:]
            if status == 101:
                self._switch(http_11, fields, data)
                return
            if status >= 200:
                break
            self._interim += 1
            if self._interim > MOST_INTERIM:
                raise AgentBroken(f"the agent sent over {MOST_INTERIM} interim answers")
        self._held = b""
        self._answering = True
        head = answer_of(status, http_11, fields)
        self._body = body_of(head, self._head.startswith(b"HEAD "))
        self._answer.started(head.status, head.fields, head.length)
        if self._body is None:
            self._end()
        else:
            self._read_body(data)

    def _read_body(self, data: bytes) -> None:
        if self._over or self._body is None:
            return
        chunk, after = self._body.feed(data)
        if chunk:
            self._answer.data(chunk)
        if after is not None:
            self._end()

    def _switch(self, http_11: bool, fields: list[Field], after: bytes) -> None:
        """Hold the agent's 101 to what was asked; then it is the client's bytes' turn."""
        named = {name: value.strip(b" \t") for name, _, value in fields}
        protocol = named.get(b"upgrade", b"")
        options = options_of(named.get(b"connection", b""))
        several = sum(name in (b"upgrade", b"connection") for name, _, _ in fields) != 2
        asked = {one.strip().lower() for one in self._asked.split(b",")}
        if not http_11 or several or b"upgrade" not in options or protocol.lower() not in asked:
            raise AgentBroken("the agent switched to a protocol that was not asked for")
        if b"content-length" in named or b"transfer-encoding" in named:
            raise AgentBroken("the agent switched protocols with a body")
        if self._key and protocol.lower() == b"websocket":
            proof = sha1(self._key + _WEBSOCKET_SALT, usedforsecurity=False).digest()
            if named.get(b"sec-websocket-accept") != b64encode(proof):
                raise AgentBroken("the agent's Sec-WebSocket-Accept does not fit the key")
        self._held = b""
        self._switched = True
        passed = tuple(
            (shown, value)
            for name, shown, value in fields
            if name not in HOP_BY_HOP and name not in options
        )
        self._answer.switched(passed, protocol)
        if after and not self._over:
            self._answer.data(after)

    def _close(self, clean: bool) -> None:
        """The agent has closed its connection, or broken it off."""
        if self._over:
            return
        if clean and (self._switched or isinstance(self._body, UntilCloseBody)):
            self._end()
        elif self._switched:
            self._fail(AgentBroken("the agent broke off the upgraded connection"))
        elif self._answering or self._held:
            self._fail(AgentCutShort("the agent closed the connection amid its answer"))
        else:
            self._fail(AgentLeft("the agent closed the connection without an answer"))

    def _moved(self) -> None:
        assert self._outlet is not None
        if self._outlet.queued or self._over:
            return
        if self._client_ended:
            self._end_half()
        elif self._body_held:
            self._body_held = False
            self._answer.resumeProducing()

    def _end_half(self) -> None:
        """Once all that the client sent is out: tell the agent of its end, or end altogether."""
        if self._outlet is None or self._outlet.queued:
            return
        if self._agent_ended:
            self._end()
        else:
            self.transport.loseWriteConnection()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self.transport.loseConnection()
            self._answer.ended()

    def _fail(self, error: CallFailed) -> None:
        if not self._over:
            self.cancel()
            self._over = True
            self._answer.failed(error)


class _Only(Factory):
    """Builds one connection, which there is already."""

    noisy = False

    def __init__(self, exchange: UpgradeExchange) -> None:
        self._exchange = exchange

    def buildProtocol(self, addr: Any) -> UpgradeExchange:
        return self._exchange
