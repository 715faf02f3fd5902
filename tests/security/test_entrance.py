"""Who may claim a new server, how often one may try, and which role opens what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from ploinky.errors import Forbidden, TooManyRequests, Unauthenticated
from ploinky.limit_interfaces import ILoginThrottle
from ploinky.routing.rates import LOGINS_FILE_NAME, SharedRates
from ploinky.security.bootstrap import BootstrapToken, comes_from_here, is_loopback
from ploinky.security.roles import RULES, check, reaches, reaches_domain
from ploinky.security.throttle import LoginThrottle
from ploinky.values import NOBODY, DeploymentKey, Principal, Role


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "api.localhost", "127.0.0.1", "127.8.9.1:80", "::1", "[::1]:80",
     "localhost.", "::ffff:127.0.0.1"],
)  # fmt: skip
def test_this_machine_is_known_by_its_names(host):
    """With and without a port."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", "127.0.0.1.nip.io",
     "notlocalhost", "[::1", "1.2.3.4:127.0.0.1", "2130706433"],
)  # fmt: skip
def test_no_other_name_passes_for_this_machine(host):
    """Whatever it may resolve to."""
    assert not is_loopback(host)


def test_a_request_from_this_machine_is_told_from_a_proxied_one():
    """One hop, from loopback, to loopback, without a mark of a proxy."""
    assert comes_from_here(["127.0.0.1"], "localhost:8000", False)
    assert comes_from_here(["::1"], "[::1]:8000", False)
    assert not comes_from_here([], "localhost", False)
    assert not comes_from_here(["203.0.113.9"], "localhost", False)
    assert not comes_from_here(["203.0.113.9", "127.0.0.1"], "localhost", False)
    assert not comes_from_here(["127.0.0.1"], "localhost", True)
    assert not comes_from_here(["127.0.0.1"], "rebound.example.com", False)


def test_the_bootstrap_token_opens_until_it_is_spent():
    """Only the last one that was printed."""
    bootstrap = BootstrapToken(os.urandom)
    assert not bootstrap.admits("")
    first = bootstrap.mint()
    second = bootstrap.mint()
    assert not bootstrap.admits(first)
    assert bootstrap.admits(second)
    bootstrap.spend()
    assert not bootstrap.admits(second)


class Counting:
    """One clock, one file, and throttles of as many processes as a test likes."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.file = directory / LOGINS_FILE_NAME

    def throttle(self) -> LoginThrottle:
        """Give another process's."""
        rates = SharedRates(
            self.file.parent, lambda: round(self.clock.seconds() * 1e9), self.file.name
        )
        return LoginThrottle(rates)


@pytest.fixture
def counting(tmp_path: Path) -> Counting:
    """A new server's."""
    return Counting(tmp_path)


def attempts(throttle: LoginThrottle, address: str) -> int:
    """How many attempts in a row are let through."""
    for number in range(1000):
        try:
            throttle.attempt(address)
        except TooManyRequests:
            return number
    return 1000


def test_the_throttle_keeps_its_interface(counting):
    """Whoever is given one can call all of it."""
    assert verifyObject(ILoginThrottle, counting.throttle())


def test_guessing_slows_down(counting):
    """Ten at once, then one every six seconds; the error says when, and looking costs nothing."""
    throttle, clock = counting.throttle(), counting.clock
    for _ in range(20):
        throttle.check("203.0.113.9")
    assert attempts(throttle, "203.0.113.9") == 10
    for refused in (throttle.attempt, throttle.check):
        with pytest.raises(TooManyRequests, match=r"203\.0\.113\.9; try again in 6 s") as raised:
            refused("203.0.113.9")
        assert raised.value.retry_after_seconds == 6
    clock.advance(4.5)
    with pytest.raises(TooManyRequests, match="try again in 2 s"):
        throttle.check("203.0.113.9")
    clock.advance(1.5)
    throttle.check("203.0.113.9")
    assert attempts(throttle, "203.0.113.9") == 1
    clock.advance(3600)
    assert attempts(throttle, "203.0.113.9") == 10


def test_a_guesser_is_held_up_wherever_it_tries(counting):
    """By the leader and by every worker, one that has just begun as well."""
    first, second = counting.throttle(), counting.throttle()
    for number in range(10):
        (first, second)[number % 2].attempt("203.0.113.9")
    for throttle in (first, second, counting.throttle()):
        assert attempts(throttle, "203.0.113.9") == 0
    second.succeeded("203.0.113.9")
    assert attempts(first, "203.0.113.9") == 10


def test_one_guesser_does_not_lock_others_out(counting):
    """Other addresses are let through; an IPv6 network is one guesser, however many it has."""
    throttle = counting.throttle()
    attempts(throttle, "203.0.113.9")
    attempts(throttle, "2001:db8::1")
    assert attempts(throttle, "203.0.113.10") == 10
    assert attempts(throttle, "2001:db8::2") == 0
    assert attempts(throttle, "2001:db8:0:0:ffff::%eth0") == 0
    assert attempts(throttle, "::ffff:203.0.113.9") == 0
    assert attempts(throttle, "2001:db8:0:1::2") == 10


def test_who_has_a_key_is_not_slowed_down(counting):
    """A success forgets the failures before it."""
    throttle = counting.throttle()
    for _ in range(100):
        throttle.attempt("203.0.113.9")
        throttle.succeeded("203.0.113.9")


def test_guessers_from_everywhere_take_no_more_room(counting):
    """And one that was held up before is held up still."""
    throttle = counting.throttle()
    attempts(throttle, "first")
    size = counting.file.stat().st_size
    for number in range(10_000):
        throttle.attempt(f"address-{number}")
    assert attempts(throttle, "first") == 0
    assert counting.file.stat().st_size == size


def test_that_somebody_is_held_up_is_news_once_an_hour(counting):
    """Whichever worker notices."""
    throttle, other = counting.throttle(), counting.throttle()
    assert throttle.is_news("203.0.113.9")
    assert not other.is_news("203.0.113.9")
    counting.clock.advance(3600)
    assert other.is_news("203.0.113.9")


ADMIN = Principal("Admin", Role.ADMIN, "a")
PRINCIPALS = {
    "nobody": NOBODY,
    "caller": Principal("c", Role.CALLER, "b"),
    "viewer": Principal("v", Role.VIEWER, "c"),
    "deployer": Principal("d", Role.DEPLOYER, "d"),
    "confined": Principal("s", Role.DEPLOYER, "e", scope=("a.example", "localhost/demo")),
    "admin": ADMIN,
}


def test_a_route_without_a_rule_is_refused():
    """Even to an admin."""
    with pytest.raises(Forbidden, match="no rule"):
        check("forgotten", ADMIN)


def test_a_missing_credential_is_told_from_a_small_one():
    """401 says what is needed, 403 who is needed."""
    with pytest.raises(Unauthenticated, match="log in"):
        check("deployments.list", NOBODY)
    with pytest.raises(Forbidden, match="admin or deployer; v is viewer"):
        check("deployments.deploy", PRINCIPALS["viewer"])
    with pytest.raises(Forbidden, match=r"confined to a\.example"):
        check("logs", PRINCIPALS["confined"])
    for route in RULES:
        check(route, ADMIN)


def test_scopes_reach_as_far_as_they_say():
    """A domain with all its paths, or one deployment and nothing beneath it."""
    confined = PRINCIPALS["confined"]
    assert reaches(confined, DeploymentKey("a.example", "/anything"))
    assert reaches(confined, DeploymentKey("localhost", "/demo"))
    assert not reaches(confined, DeploymentKey("localhost", "/demo/more"))
    assert not reaches(confined, DeploymentKey("localhost", "/"))
    assert not reaches(confined, DeploymentKey("sub.a.example", "/"))
    assert reaches_domain(confined, "localhost")
    assert not reaches_domain(confined, "b.example")
    assert reaches(PRINCIPALS["deployer"], DeploymentKey("b.example", "/"))
    assert reaches(Principal("a", Role.ADMIN, scope=("x",)), DeploymentKey("b.example", "/"))
