"""`keys` and `sessions`: nobody gives more than they have, and what is taken back is gone."""

from __future__ import annotations

import pytest
import pytest_twisted

LOGIN = {"command": "login", "params": ["pk_admin"]}


async def made(server, key="admin", **body):
    """Make a key; gives the answer."""
    return await server.ask("POST", "keys", {"name": "new", "role": "caller", **body}, key=key)


async def role_of(server, token):
    """The role that a token has, None where it opens nothing."""
    fields = {"Authorization": f"Bearer {token}"}
    answer = await server.ask("GET", "check-auth", key=None, fields=fields)
    return answer.json.get("role")


@pytest_twisted.ensureDeferred
async def test_a_key_is_shown_once_and_works(server):
    """The list says what it may and when it was used; never what it is."""
    answer = await made(server, role="viewer", scope=["A.example", "localhost/demo/"])
    token = answer.json["apiKey"]
    assert await role_of(server, token) == "viewer"
    fields = {"Authorization": f"Bearer {token}"}
    who = (await server.ask("GET", "check-auth", key=None, fields=fields)).json
    assert who["scope"] == ["a.example", "localhost/demo"]
    server.clock.advance(60)
    assert await role_of(server, token) == "viewer"
    listed = await server.ask("GET", "keys")
    (key,) = (one for one in listed.json["keys"] if one["name"] == "new")
    assert key == {
        "name": "new",
        "role": "viewer",
        "scope": ["a.example", "localhost/demo"],
        "expiresAt": None,
        "createdAt": "2023-11-14T22:13:20.000Z",
        "lastUsedAt": "2023-11-14T22:14:20.000Z",
        "endsWith": None,
    }
    assert token.encode() not in listed.body


@pytest_twisted.ensureDeferred
async def test_a_key_expires(server):
    """To the second, in whoever is asked."""
    token = (await made(server, expiresIn=60)).json["apiKey"]
    server.clock.advance(59)
    assert await role_of(server, token) == "caller"
    server.clock.advance(1)
    assert await role_of(server, token) is None


@pytest.mark.parametrize(
    ("key", "body", "field"),
    [
        ("admin", {"role": "emperor"}, "role"),
        ("admin", {"name": "a b"}, "name"),
        ("admin", {"name": "InternetUser"}, "name"),
        ("admin", {"name": "internetuser"}, "name"),
        ("deployer", {"name": "Admin"}, "name"),
        ("admin", {"name": "schedule"}, "name"),
        ("deployer", {"name": "admin"}, "name"),
        ("admin", {"role": "admin", "scope": ["a.example"]}, "scope"),
        ("admin", {"scope": ["http://x"]}, "scope"),
        ("admin", {"expiresIn": 0}, "expiresIn"),
        ("deployer", {"role": "admin"}, "role"),
        ("confined", {"scope": ["localhost"]}, "scope"),
        ("confined", {"scope": ["localhost/other"]}, "scope"),
        ("confined", {"scope": ["a.example", "b.example"]}, "scope"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_key_that_does_not_fit_is_not_made(server, key, body, field):
    """Least of all one that may do more than its maker's."""
    answer = await made(server, key, **body)
    assert (answer.status, set(answer.json["details"])) == (400, {field})
    assert "new" not in [one.id for one in await server.keys.principals()]


@pytest_twisted.ensureDeferred
async def test_a_confined_deployer_gives_of_their_scope(server):
    """All of it where none is named, or a part; nobody gives what would outlive their own key."""
    whole = await made(server, "confined", name="whole")
    assert whole.json["key"]["scope"] == ["a.example", "localhost/carl"]
    part = await made(server, "confined", name="part", scope=["a.example/v1"])
    assert part.json["key"]["scope"] == ["a.example/v1"]
    short = await made(server, role="deployer", name="short", expiresIn=100)
    fields = {"Authorization": f"Bearer {short.json['apiKey']}"}
    for seconds, status in ((101, 400), (100, 200)):
        body = {"name": "child", "role": "caller", "expiresIn": seconds}
        answer = await server.ask("POST", "keys", body, key=None, fields=fields)
        assert answer.status == status


@pytest_twisted.ensureDeferred
async def test_what_was_made_with_a_key_ends_with_it(server):
    """Its sessions, the keys that a deployer made with it or with a session of it, and theirs."""
    boss = (await made(server, name="boss", role="deployer")).json["apiKey"]
    login = {"command": "login", "params": [boss]}
    session = (await server.ask("POST", "/auth", login, key=None)).json["authorizationToken"]
    by_session = {"Authorization": f"Bearer {session}"}
    body = {"name": "child", "role": "deployer"}
    child = (await server.ask("POST", "keys", body, key=None, fields=by_session)).json["apiKey"]
    body = {"name": "grandchild", "role": "caller"}
    by_child = {"Authorization": f"Bearer {child}"}
    grandchild = (await server.ask("POST", "keys", body, key=None, fields=by_child)).json["apiKey"]
    tokens = (boss, session, child, grandchild)
    assert [await role_of(server, one) for one in tokens] == [
        "deployer", "deployer", "deployer", "caller",
    ]  # fmt: skip
    assert (await server.ask("DELETE", "keys/boss")).status == 200
    assert [await role_of(server, one) for one in tokens] == [None] * 4
    told = {one.id for one in server.workers.principals}
    assert not told & {"boss", "child", "grandchild"}


@pytest_twisted.ensureDeferred
async def test_an_admins_keys_stay_when_the_admin_goes(server):
    """Whoever leaves does not take the server's keys along."""
    second = (await made(server, name="second", role="admin")).json["apiKey"]
    by_second = {"Authorization": f"Bearer {second}"}
    body = {"name": "ci", "role": "deployer"}
    ci = (await server.ask("POST", "keys", body, key=None, fields=by_second)).json["apiKey"]
    assert (await server.ask("DELETE", "keys/second")).status == 200
    assert await role_of(server, ci) == "deployer"


@pytest_twisted.ensureDeferred
async def test_deployers_see_and_remove_their_own(server):
    """Nobody else's: it is as if those were not there."""
    await made(server, "deployer", name="mine")
    await made(server, name="others")
    listed = (await server.ask("GET", "keys", key="deployer")).json
    assert [one["name"] for one in listed["keys"]] == ["dora", "mine"]
    assert (await server.ask("DELETE", "keys/others", key="deployer")).status == 404
    assert (await server.ask("DELETE", "keys/Admin", key="deployer")).status == 404
    assert (await server.ask("DELETE", "keys/mine", key="deployer")).status == 200


@pytest_twisted.ensureDeferred
async def test_the_last_admin_key_is_not_removed_by_accident(server):
    """Not even where another admin's key expires before it; with force it is."""
    await made(server, name="short", role="admin", expiresIn=3600)
    answer = await server.ask("DELETE", "keys", {"name": "Admin"})
    assert (answer.status, answer.code) == (409, "CONFLICT")
    assert "force" in answer.json["message"]
    assert (await server.ask("DELETE", "keys/short")).status == 200
    assert (await server.ask("DELETE", "keys/Admin?force=true")).status == 200
    assert (await server.ask("GET", "keys")).status == 401


@pytest_twisted.ensureDeferred
async def test_sessions_are_listed_and_ended(server):
    """By whoever has the key, or an admin; one's own is marked."""
    mine = (await server.ask("POST", "/auth", LOGIN, key=None)).json["authorizationToken"]
    login = {"command": "login", "params": ["pk_caller"]}
    other = (await server.ask("POST", "/auth", login, key=None)).json["authorizationToken"]
    fields = {"Authorization": f"Bearer {mine}"}
    listed = (await server.ask("GET", "sessions", key=None, fields=fields)).json["sessions"]
    assert {(one["key"], one["isThisOne"]) for one in listed} == {("Admin", True), ("cleo", False)}
    seen = (await server.ask("GET", "sessions", key="caller")).json["sessions"]
    assert [one["key"] for one in seen] == ["cleo"]
    (admins,) = (one["id"] for one in listed if one["key"] == "Admin")
    assert (await server.ask("DELETE", f"sessions/{admins}", key="caller")).status == 404
    assert (await server.ask("DELETE", f"sessions/{seen[0]['id']}", key="caller")).status == 200
    assert await role_of(server, other) is None
    assert await role_of(server, mine) == "admin"
