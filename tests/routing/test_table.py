"""Which route answers for a host and a path, and whose token this is."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs
import pytest
from zope.interface.verify import verifyObject

from ploinky.errors import NoSuchRoute
from ploinky.interfaces import IRouter
from ploinky.routing.table import RouteTable
from ploinky.values import (
    NOBODY,
    DeploymentKey,
    Kind,
    Principal,
    Role,
    Route,
    RouteChange,
    RouteSnapshot,
)

NOW = 1_000_000.0


@pytest.fixture
def table(make_route: Any) -> RouteTable:
    """Some deployments, and the built-in routes."""
    table = RouteTable(lambda: NOW)
    table.adopt(
        RouteSnapshot(
            5,
            (
                make_route("localhost/demo"),
                make_route("localhost/demo/v2"),
                make_route("localhost/a/b/c/d"),
                make_route("localhost/management/spoof"),
                make_route("api.example.com/"),
                make_route("api.example.com/v1"),
                make_route("*/management", Kind.CONTROL),
                make_route("*/", Kind.CONTROL),
            ),
        )
    )
    return table


def where(route: Route) -> str:
    return str(route.key)


def test_it_is_a_router(table: RouteTable) -> None:
    """It keeps the interface's promises of form."""
    verifyObject(IRouter, table)


@pytest.mark.parametrize(
    ("host", "path", "found"),
    [
        (b"localhost", b"/demo", "localhost/demo"),
        (b"localhost", b"/demo/", "localhost/demo"),
        (b"localhost", b"/demo/hello", "localhost/demo"),
        (b"localhost", b"/demo/v2", "localhost/demo/v2"),
        (b"localhost", b"/demo/v2/x/y/z", "localhost/demo/v2"),
        (b"localhost", b"/demo/v22", "localhost/demo"),
        (b"localhost", b"/a/b/c/d/e", "localhost/a/b/c/d"),
        (b"LOCALHOST:8000", b"/demo", "localhost/demo"),
        (b"127.0.0.1:8000", b"/demo", "localhost/demo"),
        (b"[::1]:8000", b"/demo", "localhost/demo"),
        (b"localhost.", b"/demo", "localhost/demo"),
        (b"localhost.:80", b"/demo", "localhost/demo"),
        (b"api.example.com", b"/", "api.example.com/"),
        (b"api.example.com", b"/anything//at/all", "api.example.com/"),
        (b"api.example.com", b"/v1", "api.example.com/v1"),
        (b"api.example.com", b"/v10", "api.example.com/"),
    ],
)
def test_the_longest_prefix_of_whole_segments_wins(
    table: RouteTable, host: bytes, path: bytes, found: str
) -> None:
    """Host without port and case, path by segments."""
    assert where(table.match(host, path)) == found


@pytest.mark.parametrize(
    ("host", "path"),
    [
        (b"localhost", b"/dem"),
        (b"localhost", b"/demonstration"),
        (b"localhost", b"/Demo"),
        (b"localhost", b"/a/b/c"),
        (b"localhost", b"//demo"),
        (b"elsewhere", b"/demo"),
        (b"", b"/demo"),
        (b"[::2]:8000", b"/demo"),
    ],
)
def test_what_is_not_deployed_is_not_found(table: RouteTable, host: bytes, path: bytes) -> None:
    """Neither half of a segment nor another domain leads anywhere."""
    with pytest.raises(NoSuchRoute) as caught:
        table.match(host, path)
    assert path.decode() in caught.value.message


def test_the_message_names_host_and_path(table: RouteTable) -> None:
    """Whoever reads it knows what was asked for, and whether the domain is the trouble."""
    with pytest.raises(NoSuchRoute, match=r"nothing is deployed at localhost/nowhere$"):
        table.match(b"localhost:8000", b"/nowhere")
    with pytest.raises(NoSuchRoute, match="there is no deployment on the domain elsewhere"):
        table.match(b"elsewhere", b"/demo")


@pytest.mark.parametrize("host", [b"localhost", b"api.example.com", b"unknown", b""])
@pytest.mark.parametrize("path", [b"/management", b"/management/api", b"/management/spoof/x"])
def test_no_deployment_stands_in_for_the_management_api(
    table: RouteTable, host: bytes, path: bytes
) -> None:
    """On every domain, and whatever is deployed at or beneath it."""
    assert where(table.match(host, path)) == "*/management"


def test_the_front_door_answers_only_where_nothing_else_does(table: RouteTable) -> None:
    """A deployment at / keeps its /, and the front door is no prefix of anything."""
    assert where(table.match(b"localhost", b"/")) == "*/"
    assert where(table.match(b"unknown", b"/")) == "*/"
    assert where(table.match(b"api.example.com", b"/")) == "api.example.com/"
    with pytest.raises(NoSuchRoute):
        table.match(b"localhost", b"/nowhere")


def test_a_worker_only_moves_forward(table: RouteTable, make_route: Any) -> None:
    """A snapshot that was overtaken on its way changes nothing."""
    table.adopt(RouteSnapshot(4, ()))
    assert table.generation == 5
    assert where(table.match(b"localhost", b"/demo")) == "localhost/demo"
    table.adopt(RouteSnapshot(6, (make_route("localhost/new"),)))
    assert table.generation == 6
    with pytest.raises(NoSuchRoute):
        table.match(b"localhost", b"/demo")


def test_many_hosts_do_not_fill_the_memory(table: RouteTable) -> None:
    """Made-up hosts are forgotten again, and known ones are found all the same."""
    for number in range(10_000):
        with pytest.raises(NoSuchRoute):
            table.match(b"h%d" % number, b"/demo")
    assert len(table._hosts) <= 4096
    assert where(table.match(b"localhost", b"/demo")) == "localhost/demo"


def test_a_token_is_known_by_its_hash_until_it_expires() -> None:
    """Unknown, expired and removed tokens are nobody's."""
    now = [NOW]
    table = RouteTable(lambda: now[0])

    def principal(name: str, token: str, expires_at: float | None) -> Principal:
        return Principal(name, Role.CALLER, hashlib.sha256(token.encode()).hexdigest(), expires_at)

    key = principal("key", "pk_1", None)
    session = principal("someone", "ps_1", NOW + 60)
    table.adopt(RouteSnapshot(1, (), (key, session)))
    assert table.principal("pk_1") == key
    assert table.principal("ps_1") == session
    assert table.principal("pk_2") is NOBODY
    assert table.principal("") is NOBODY
    assert table.principal(key.token_hash) is NOBODY
    now[0] = NOW + 60
    assert table.principal("ps_1") is NOBODY
    assert table.principal("pk_1") == key
    table.adopt(RouteSnapshot(2, (), ()))
    assert table.principal("pk_1") is NOBODY


def test_a_loopback_address_may_be_a_domain_of_its_own(make_route: Any) -> None:
    """What is deployed to `127.0.0.1` is found there, and nothing of `localhost` is."""
    table = RouteTable(lambda: NOW)
    routes = (make_route("localhost/demo"), make_route("127.0.0.1/own"))
    table.adopt(RouteSnapshot(1, routes))
    assert where(table.match(b"127.0.0.1", b"/own")) == "127.0.0.1/own"
    with pytest.raises(NoSuchRoute):
        table.match(b"127.0.0.1", b"/demo")


def test_what_is_hidden_is_not_found(make_route: Any) -> None:
    """It says that the domain is disabled; built-in routes hold there as well."""
    table = RouteTable(lambda: NOW)
    routes = (
        attrs.evolve(make_route("localhost/demo"), is_hidden=True),
        make_route("a.example/demo"),
        make_route("*/management", Kind.CONTROL),
    )
    table.adopt(RouteSnapshot(1, routes))
    for host in (b"localhost", b"127.0.0.1:8000"):
        with pytest.raises(NoSuchRoute, match="disabled"):
            table.match(host, b"/demo")
    assert where(table.match(b"a.example", b"/demo")) == "a.example/demo"
    assert where(table.match(b"localhost", b"/management")) == "*/management"
    table.adopt(RouteSnapshot(2, (make_route("localhost/demo"),)))
    assert where(table.match(b"127.0.0.1", b"/demo")) == "localhost/demo"


# --- changes --------------------------------------------------------------------


def test_a_change_touches_nothing_beside_it(table: RouteTable, make_route: Any) -> None:
    """What stays is the same object; what is new, replaced or gone is so at once."""
    stays = table.match(b"localhost", b"/demo/v2")
    renewed = attrs.evolve(make_route("localhost/demo"), release=9)
    gone = (DeploymentKey("localhost", "/a/b/c/d"), DeploymentKey("api.example.com", "/"))
    left = table.amend(RouteChange(5, 6, (renewed, make_route("new.example/x/y")), gone))
    assert table.generation == 6
    assert sorted(map(where, left)) == ["api.example.com/", "localhost/a/b/c/d", "localhost/demo"]
    assert table.match(b"localhost", b"/demo/v2/z") is stays
    assert table.match(b"localhost", b"/demo/x") is renewed
    assert where(table.match(b"new.example", b"/x/y/z")) == "new.example/x/y"
    assert where(table.match(b"api.example.com", b"/v1/x")) == "api.example.com/v1"
    for host, path in ((b"localhost", b"/a/b/c/d"), (b"api.example.com", b"/v2")):
        with pytest.raises(NoSuchRoute):
            table.match(host, path)
    assert len(list(table.routes())) == 7
    assert table.route_at(gone[0]) is None
    assert table.route_at(renewed.key) is renewed


def test_a_change_to_another_generation_is_refused(table: RouteTable) -> None:
    """Nothing of it is done."""
    with pytest.raises(ValueError, match="generation 4"):
        table.amend(RouteChange(4, 6, gone=(DeploymentKey("localhost", "/demo"),)))
    assert table.generation == 5
    assert where(table.match(b"localhost", b"/demo")) == "localhost/demo"


def test_a_table_that_says_the_same_leaves_every_route_as_it_is(table: RouteTable) -> None:
    """As that of a leader that came back; a route that differs is new."""
    before = {route.key: route for route in table.routes()}
    copies = tuple(map(attrs.evolve, before.values()))
    assert table.adopt(RouteSnapshot(6, copies)) == []
    assert all(before[route.key] is route for route in table.routes())
    hidden = attrs.evolve(copies[-1], is_hidden=True)
    (left,) = table.adopt(RouteSnapshot(7, (*copies[:-1], hidden)))
    assert left is before[hidden.key]
    assert table.route_at(hidden.key) is hidden


def test_a_loopback_address_leads_to_localhost_as_long_as_it_has_nothing_of_its_own(
    make_route: Any,
) -> None:
    """Whichever comes first, and also for a host that was asked for before."""
    table = RouteTable(lambda: NOW)
    table.adopt(RouteSnapshot(1, ()))
    with pytest.raises(NoSuchRoute, match=r"on the domain 127\.0\.0\.1"):
        table.match(b"127.0.0.1", b"/demo")
    table.amend(RouteChange(1, 2, (make_route("localhost/demo"),)))
    assert where(table.match(b"127.0.0.1", b"/demo")) == "localhost/demo"
    own = make_route("127.0.0.1/own")
    table.amend(RouteChange(2, 3, (own,)))
    with pytest.raises(NoSuchRoute):
        table.match(b"127.0.0.1", b"/demo")
    table.amend(RouteChange(3, 4, gone=(own.key,)))
    assert where(table.match(b"127.0.0.1", b"/demo")) == "localhost/demo"
