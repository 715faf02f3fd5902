"""A connection whose client says the same again: what is remembered of it, and the short way.

Bytes enter; a whole request that says what the one before said goes the short way, or is made a
call by the plan that there is.  All else is for who reads requests, see `Connection`: one that
was read and is all there comes back here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ploinky.routing.errand import Errand
from ploinky.routing.http import RequestHead
from ploinky.routing.memo import Memo
from ploinky.routing.plan import Plan
from ploinky.routing.relay import Relay
from ploinky.routing.short import ShortWay
from ploinky.routing.stages import ANSWER, IDLE, StagedProtocol

if TYPE_CHECKING:
    from ploinky.routing.call import Call
    from ploinky.routing.listening import GatewayFactory


class RepeatingProtocol(StagedProtocol):
    """See the module.

    Attributes:
        is_ordinary: Nothing is known of that an answer would have to heed: for `ShortWay`.
    """

    def __init__(self, factory: GatewayFactory) -> None:
        super().__init__(factory)
        self._gateway = factory.gateway
        self._call: Call | None = None
        self._memo: Memo | None = None
        self._short: ShortWay | None = None
        self.is_ordinary = not factory.draining

    def read(self, data: bytes) -> None:
        """Read what is no repetition, or cannot be told for one yet."""
        raise NotImplementedError  # a connection knows how

    def end(self) -> None:
        """Close once what was sent is out."""
        raise NotImplementedError  # a connection knows what else there may be

    def new_call(self, head: RequestHead, body: bytes | None, size: int) -> Call:
        """Make a call of a request.

        Args:
            body: All of it; None where it is still to come.
            size: Of what has come, in bytes.
        """
        raise NotImplementedError  # it is a connection's

    def dataReceived(self, data: bytes) -> None:
        memo = self._memo
        router = self._gateway.router
        if (
            memo is not None
            and self.stage is IDLE
            and memo.generation == router.generation
            and (memo.expires_at is None or memo.expires_at > self._gateway.wall_seconds())
        ):
            said: tuple[Memo, bytes, bytes] | None
            if len(data) == memo.size and data.startswith(memo.raw):
                said = memo, memo.forwarded, data[memo.head_size :]
            else:
                said = memo.varied(data, router)
            if said is not None:
                known, forwarded, body = said
                if known is not memo:
                    self._remember(known)
                short = self._short
                if short is None or not short.take(forwarded, body, len(data)):
                    self._go_on(known, forwarded, body, len(data))
                return
        self._unfold()
        self.read(data)

    @property
    def on_short_way(self) -> bool:
        """Whether a request is in hand on the short way."""
        return self._short is not None and self._short.is_busy()

    def take_in_hand(self, call: Call, plan: Plan) -> None:
        """Enter a call that is whole, and let the agent's time run."""
        self._call = call
        self._factory.busy += 1
        self.stage = ANSWER
        self.due = due = call.began + plan.route.timeout_seconds
        if due < self.noted:
            self._wheel.set(self, due)

    def leave_short_way(self) -> None:
        """Have another one made for the next request: this one still has to do with its last."""
        self._short = None

    def _remember(self, memo: Memo) -> None:
        """Know the next request by this head, if it is the same."""
        self._memo = memo
        self._short = None

    def _forget(self) -> None:
        """Remember nothing of the last head."""
        self._memo = self._short = None

    def _unfold(self) -> None:
        """Let a request on the short way go on the general way: something has happened to it."""
        if self._short is not None:
            self._short.unfold()

    def _go_on(self, memo: Memo, forwarded: bytes, body: bytes, size: int) -> None:
        """Answer a whole request whose head is known, and which cannot take its short way again."""
        if self._short is None and memo.short:
            way = Relay if memo.plan.form is None else Errand
            self._short = way(self._gateway, self, memo)
            if self._short.take(forwarded, body, size):
                return
        call = self.new_call(memo.head, body, size)
        call.follow(memo.plan, forwarded)
        self.take_in_hand(call, memo.plan)
        self._gateway.repeat(call, memo.plan)
