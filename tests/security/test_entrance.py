"""Who may claim a new server, how often one may try, and which role opens what."""

from __future__ import annotations

import os

import pytest
from twisted.internet.task import Clock

from ploinky.errors import Forbidden, TooManyRequests, Unauthenticated
from ploinky.security.bootstrap import BootstrapToken, comes_from_here, is_loopback
from ploinky.security.roles import RULES, check, reaches, reaches_domain
from ploinky.security.throttle import MOST_ADDRESSES, LoginThrottle
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


def attempts(throttle: LoginThrottle, address: str) -> int:
    """How many attempts in a row are let through."""
    for number in range(1000):
        try:
            throttle.attempt(address)
        except TooManyRequests:
            return number
    return 1000


def test_guessing_slows_down():
    """Ten at once, then one every six seconds; the error says when."""
    clock = Clock()
    throttle = LoginThrottle(clock)
    assert attempts(throttle, "203.0.113.9") == 10
    with pytest.raises(TooManyRequests, match=r"203\.0\.113\.9; try again in 6 s") as raised:
        throttle.attempt("203.0.113.9")
    assert raised.value.retry_after_seconds == 6
    clock.advance(6)
    assert attempts(throttle, "203.0.113.9") == 1
    clock.advance(3600)
    assert attempts(throttle, "203.0.113.9") == 10


def test_one_guesser_does_not_lock_others_out():
    """Other addresses are let through; an IPv6 network is one guesser, however many it has."""
    throttle = LoginThrottle(Clock())
    attempts(throttle, "203.0.113.9")
    attempts(throttle, "2001:db8::1")
    assert attempts(throttle, "203.0.113.10") == 10
    assert attempts(throttle, "2001:db8::2") == 0
    assert attempts(throttle, "2001:db8:0:1::2") == 10


def test_who_has_a_key_is_not_slowed_down():
    """A success forgets the failures before it."""
    throttle = LoginThrottle(Clock())
    for _ in range(100):
        throttle.attempt("203.0.113.9")
        throttle.succeeded("203.0.113.9")


def test_guessers_from_everywhere_do_not_fill_the_memory():
    """Only so many addresses are remembered, the latest ones."""
    throttle = LoginThrottle(Clock())
    attempts(throttle, "first")
    for number in range(MOST_ADDRESSES + 5):
        throttle.attempt(f"address-{number}")
    assert attempts(throttle, "first") == 10


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
