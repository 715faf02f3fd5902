"""How often a client may call: counted exactly, over all workers, in a fixed amount of memory."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from zope.interface.verify import verifyObject

from ploinky.addresses import client_of
from ploinky.limit_interfaces import IRates
from ploinky.routing.headers import TrustedProxies
from ploinky.routing.rates import FILE_NAME, SharedRates
from ploinky.values import CallAuth, Kind, Principal, RateLimit, Role

THREE_IN_SIX = RateLimit(3, 6.0)


class Ticking:
    """A clock of nanoseconds that a test moves."""

    def __init__(self) -> None:
        self.seconds = 12_345.0

    def __call__(self) -> int:
        return round(self.seconds * 1e9)


@pytest.fixture
def clock() -> Ticking:
    return Ticking()


@pytest.fixture
def rates(tmp_path: Path, clock: Ticking) -> Iterator[SharedRates]:
    rates = SharedRates(tmp_path, clock)
    yield rates
    rates.close()


def test_it_keeps_its_interface(rates: SharedRates) -> None:
    """And its file is for this user alone."""
    verifyObject(IRates, rates)


def test_so_many_at_once_and_evenly_from_then_on(rates: SharedRates, clock: Ticking) -> None:
    """What is refused is not counted, and says for how long."""
    ask = lambda: rates.wait_seconds(THREE_IN_SIX, "shop", "10.0.0.1")  # noqa: E731
    assert [ask() for _ in range(3)] == [0, 0, 0]
    for _ in range(5):
        assert ask() == pytest.approx(2.0, abs=0.001)
    clock.seconds += 1.5
    assert ask() == pytest.approx(0.5, abs=0.001)
    clock.seconds += 0.6
    assert ask() == 0
    assert ask() == pytest.approx(1.9, abs=0.001)
    clock.seconds += 3600
    assert [ask() > 0 for _ in range(4)] == [False, False, False, True]


def test_looking_counts_nothing(rates: SharedRates, clock: Ticking) -> None:
    """It says what a call would be told, and no more."""
    for _ in range(10):
        assert rates.would_wait_seconds(THREE_IN_SIX, "a", "me") == 0
    while not (wait := rates.wait_seconds(THREE_IN_SIX, "a", "me")):
        pass
    assert rates.would_wait_seconds(THREE_IN_SIX, "a", "me") == wait
    assert rates.would_wait_seconds(THREE_IN_SIX, "a", "another") == 0


def test_a_client_that_is_forgotten_begins_anew(rates: SharedRates, clock: Ticking) -> None:
    """And no other does."""
    for client in ("me", "another"):
        while not rates.wait_seconds(THREE_IN_SIX, "a", client):
            pass
    rates.forget(THREE_IN_SIX, "a", "me")
    rates.forget(THREE_IN_SIX, "a", "nobody")
    assert rates.would_wait_seconds(THREE_IN_SIX, "a", "me") == 0
    assert rates.would_wait_seconds(THREE_IN_SIX, "a", "another") > 0
    fresh = sum(
        not rates.wait_seconds(THREE_IN_SIX, "a", "me") for _ in range(THREE_IN_SIX.requests + 5)
    )
    assert fresh == THREE_IN_SIX.requests


def test_a_full_disk_kills_nobody_later(tmp_path: Path, rates: SharedRates) -> None:
    """The file has all of its blocks from the beginning."""
    kept = (tmp_path / FILE_NAME).stat()
    assert kept.st_blocks * 512 >= kept.st_size


def test_clients_and_limits_are_counted_apart(rates: SharedRates) -> None:
    """Two clients, two deployments, and a limit that was changed begin anew."""
    for what, client, limit in [
        ("shop", "10.0.0.1", THREE_IN_SIX),
        ("shop", "10.0.0.2", THREE_IN_SIX),
        ("other", "10.0.0.1", THREE_IN_SIX),
        ("shop", "10.0.0.1", RateLimit(3, 7.0)),
    ]:
        assert [rates.wait_seconds(limit, what, client) > 0 for _ in range(4)] == [0, 0, 0, 1]


def test_workers_count_together(tmp_path: Path, rates: SharedRates, clock: Ticking) -> None:
    """Each has the file mapped for itself, and one that comes later finds what was counted."""
    other = SharedRates(tmp_path, clock)
    said = [each.wait_seconds(THREE_IN_SIX, "shop", "a") for each in (rates, other) * 2]
    assert [wait > 0 for wait in said] == [False, False, False, True]
    late = SharedRates(tmp_path, clock)
    assert late.wait_seconds(THREE_IN_SIX, "shop", "a") > 0
    other.close()
    late.close()


def test_memory_is_bounded_and_many_clients_are_told_apart(
    tmp_path: Path, rates: SharedRates
) -> None:
    """20,000 at once do not get in one another's way, and the file does not grow."""
    file = tmp_path / FILE_NAME
    size = file.stat().st_size
    once = RateLimit(1, 60.0)
    clients = [f"10.{n >> 8}.{n & 255}" for n in range(20_000)]
    assert sum(rates.wait_seconds(once, "shop", client) > 0 for client in clients) <= 2
    forgotten = sum(rates.wait_seconds(once, "shop", client) == 0 for client in clients)
    assert forgotten <= 20
    assert file.stat().st_size == size <= 1024 * 1024 + 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("uptime", [10_000_000, 36_000])
def test_a_clock_that_began_anew_locks_nobody_out(
    rates: SharedRates, clock: Ticking, uptime: float
) -> None:
    """After a reboot what the file holds lies far ahead, and counts for nothing."""
    clock.seconds = uptime
    for _ in range(3):
        rates.wait_seconds(THREE_IN_SIX, "shop", "a")
    clock.seconds = 5.0
    assert rates.wait_seconds(THREE_IN_SIX, "shop", "a") == 0


def test_a_file_that_is_none_is_replaced(tmp_path: Path, clock: Ticking) -> None:
    """Such as one that a full disk cut short."""
    (tmp_path / FILE_NAME).write_bytes(b"short")
    rates = SharedRates(tmp_path, clock)
    assert rates.wait_seconds(THREE_IN_SIX, "shop", "a") == 0
    rates.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [FILE_NAME]


def test_where_a_client_stands_cannot_be_known(tmp_path: Path, clock: Ticking) -> None:
    """Each server has a secret of its own."""
    places = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rates = SharedRates(tmp_path / name, clock)
        for client in ("a", "b", "c"):  # one might stand in the same place by chance
            rates.wait_seconds(THREE_IN_SIX, "shop", client)
        rates.close()
        content = (tmp_path / name / FILE_NAME).read_bytes()[64:]
        places.append([at for at in range(0, len(content), 8) if any(content[at : at + 8])])
    assert places[0] != places[1]


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("unix", "unix"),
    ],
)
def test_a_network_of_version_6_is_one_client(address: str, counted: str) -> None:
    """As its owner has all of its addresses."""
    assert client_of(address) == counted


# --- in the gateway


def limited(make_route: Any, **changes: Any) -> Any:
    return make_route("localhost/shop", Kind.SERVICE, rate_limit=THREE_IN_SIX, **changes)


def request(*fields: str, method: str = "GET") -> bytes:
    lines = [f"{method} /shop/x HTTP/1.1", "Host: localhost", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@pytest_twisted.ensureDeferred
async def test_too_many_are_refused_before_their_body(corridor: Any, make_route: Any) -> None:
    """429 with `Retry-After`; the agent hears nothing of it, and the memo does not help."""
    corridor.publish(limited(make_route))
    corridor.upstream.respond = lambda head, exchange: exchange.say(b"ok")
    client = await corridor.connect()
    for _ in range(3):
        client.send(request())
        assert (await client.answer()).status == 200
    client.send(request())
    answer = await client.answer()
    assert (answer.status, answer.field(b"retry-after")) == (429, b"2")
    assert msgspec.json.decode(answer.body)["code"] == "TOO_MANY_REQUESTS"
    assert answer.field(b"connection") is None
    client.send(request("Content-Length: 100000000", "Expect: 100-continue", method="POST"))
    answer = await client.answer()
    assert (answer.status, answer.field(b"connection")) == (429, b"close")
    assert len(corridor.upstream.sent) == 3
    corridor.clock.advance(2.0)
    assert (await corridor.ask(request())).status == 200
    assert corridor.records()[3]["mood"] == "refused"


@pytest_twisted.ensureDeferred
async def test_a_principal_is_one_client_wherever_it_calls_from(
    corridor: Any, make_route: Any
) -> None:
    """And nobody else's calls from the same address count for it."""
    token = "secret"
    ci = Principal("ci", Role.CALLER, hashlib.sha256(token.encode()).hexdigest())
    corridor.publish(limited(make_route), principals=(ci,))
    corridor.upstream.respond = lambda head, exchange: exchange.say(b"ok")
    known = request(f"Authorization: Bearer {token}")
    assert [(await corridor.ask(request())).status for _ in range(4)] == [200, 200, 200, 429]
    assert [(await corridor.ask(known)).status for _ in range(4)] == [200, 200, 200, 429]


@pytest_twisted.ensureDeferred
async def test_guesses_at_keys_are_counted(corridor: Any, make_route: Any) -> None:
    """Calls without a valid key use up what their address has."""
    corridor.publish(limited(make_route, auth=CallAuth.KEY))
    guesses = [request(f"Authorization: Bearer {n}") for n in range(4)]
    assert [(await corridor.ask(guess)).status for guess in guesses] == [401, 401, 401, 429]


class TestBehindAProxy:
    """The address that a trusted proxy reports is the client's."""

    @pytest.fixture
    def trusted(self) -> tuple[str, ...]:
        return ("127.0.0.1", "10.0.0.0/8")

    @pytest_twisted.ensureDeferred
    async def test_its_clients_are_counted_apart(self, corridor: Any, make_route: Any) -> None:
        """However many hops are trusted; what a client made up in front of that is not believed."""
        corridor.publish(limited(make_route))
        corridor.upstream.respond = lambda head, exchange: exchange.say(b"ok")

        async def call(forwarded: str) -> int:
            answer = await corridor.ask(request(f"X-Forwarded-For: {forwarded}"))
            return int(answer.status)

        first = [await call(f"6.6.6.{n}, 192.0.2.1, 10.0.0.7") for n in range(4)]
        assert first == [200, 200, 200, 429]
        assert await call("192.0.2.2, 10.0.0.7") == 200
        assert await call("192.0.2.1") == 429

    @pytest.mark.parametrize(
        ("said", "sender"),
        [
            (b"192.0.2.1", "192.0.2.1"),
            (b"", "127.0.0.1"),
            (b"192.0.2.1, nonsense", "127.0.0.1"),
            (b"192.0.2.1:4711", "127.0.0.1"),
            (b"10.1.1.1", "10.1.1.1"),
            (b"[2001:db8::1]", "2001:db8::1"),
            (b"::ffff:192.0.2.1, 10.2.2.2", "192.0.2.1"),
        ],
    )
    def test_what_it_says_is_read_from_its_end(
        self, trusted: tuple[str, ...], said: bytes, sender: str
    ) -> None:
        """And no further than those who wrote it are trusted."""
        from ploinky.routing.http import Limits, read_request

        raw = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: %b\r\n\r\n" % said
        proxies = TrustedProxies(trusted)
        head = read_request(raw, Limits())
        assert proxies.sender(proxies.peer("127.0.0.1"), head) == sender
        assert proxies.sender(proxies.peer("192.0.2.9"), head) == "192.0.2.9"
        assert proxies.sender_of(f"{said.decode()}, 127.0.0.1") == sender
        assert proxies.sender_of(f"{said.decode()}, 192.0.2.9") == "192.0.2.9"
        assert proxies.sender_of(f"{said.decode()}, unix") == "unix"
