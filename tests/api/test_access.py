"""Becoming somebody: `init`, `/auth`, `check-auth`, and the setting `auth: none`."""

from __future__ import annotations

import pytest
import pytest_twisted

from ploinky.errors import SettingsInvalid
from ploinky.security.tokens import token_hash

HERE = {"peer": "127.0.0.1", "host": "localhost:8000", "key": None}
LOGIN = {"command": "login", "params": ["pk_admin"]}


@pytest_twisted.ensureDeferred
async def test_a_new_server_is_claimed_on_its_own_machine(serve):
    """The key that comes back works at once; a second `init` says that it was done."""
    server = await serve(with_keys=False)
    answer = await server.ask("POST", "init", {}, **HERE)
    assert answer.status == 200
    assert answer.json["success"] is True
    key = answer.json["apiKey"]
    assert [p.token_hash for p in server.workers.principals] == [token_hash(key)]
    who = await server.ask("GET", "check-auth", key=None, fields={"X-API-Key": key})
    assert who.json == {"authenticated": True, "userId": "Admin", "role": "admin", "scope": []}
    again = await server.ask("POST", "init", {}, **HERE)
    assert (again.status, again.code, again.json["error"]) == (
        409, "CONFLICT", "Already initialized",
    )  # fmt: skip


@pytest.mark.parametrize(
    "request_",
    [
        {"peer": "203.0.113.9"},
        {"peer": "203.0.113.9, 127.0.0.1"},
        {"fields": {"Forwarded": "for=203.0.113.9"}},
        {"fields": {"X-Real-IP": "203.0.113.9"}},
        {"fields": {"Via": "1.1 proxy"}},
        {"fields": {"X-Ploinky-Proxied": "1"}},
        {"host": "rebound.example.com"},
        {"fields": {"Origin": "http://evil.example"}},
        {"fields": {"Sec-Fetch-Site": "cross-site"}},
    ],
)
@pytest_twisted.ensureDeferred
async def test_nobody_else_claims_it(serve, request_):
    """Not from elsewhere, not through a proxy, not through a page in the owner's browser."""
    server = await serve(with_keys=False)
    answer = await server.ask("POST", "init", {}, **{**HERE, **request_})
    assert (answer.status, answer.code) == (403, "FORBIDDEN")
    assert await server.keys.principals() == []


@pytest_twisted.ensureDeferred
async def test_the_bootstrap_token_claims_it_from_elsewhere(serve):
    """Once; a wrong one does not, and cannot be guessed at."""
    server = await serve(with_keys=False)
    token = server.bootstrap.mint()
    refused = await server.ask("POST", "init", {"token": "pb_wrong"}, key=None)
    assert refused.status == 403
    assert "bootstrap token" in refused.json["message"]
    assert (await server.ask("POST", "init", {"token": token}, key=None)).status == 200
    assert not server.bootstrap.admits(token)


@pytest_twisted.ensureDeferred
async def test_guessing_the_bootstrap_token_slows_down(serve):
    """As guessing keys does."""
    server = await serve(with_keys=False)
    server.bootstrap.mint()
    statuses = [
        (await server.ask("POST", "init", {"token": f"pb_{n}"}, key=None)).status for n in range(12)
    ]
    assert statuses == [403] * 10 + [429] * 2


@pytest_twisted.ensureDeferred
async def test_a_login_gives_a_session_and_a_cookie(server):
    """The cookie is out of scripts' reach and does not travel to other sites' requests."""
    answer = await server.ask("POST", "/auth", LOGIN, key=None)
    assert answer.status == 200
    token = answer.json["authorizationToken"]
    assert answer.json == {"success": True, "authorizationToken": token, "userId": "Admin"}
    assert answer.field("Set-Cookie") == (
        f"authorizationToken={token}; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax"
    )
    for fields in (
        {"Cookie": f"other=1; authorizationToken={token}"},
        {"Authorization": f"bearer {token}"},
        {"X-API-Key": token},
    ):
        listed = await server.ask("GET", "deployments", key=None, fields=fields)
        assert listed.status == 200, fields
    server.clock.advance(12 * 3600)
    expired = await server.ask("GET", "deployments", key=None, fields=fields)
    assert (expired.status, expired.code) == (401, "UNAUTHENTICATED")


@pytest_twisted.ensureDeferred
async def test_logging_in_again_is_no_change_by_cookie(server):
    """A client that keeps cookies can log in again, without saying where it comes from."""
    old = {"Cookie": "authorizationToken=ps_expired"}
    assert (await server.ask("POST", "/auth", LOGIN, key=None, fields=old)).status == 200


@pytest_twisted.ensureDeferred
async def test_behind_tls_the_cookie_stays_behind_tls(server):
    """The gateway says how the request came."""
    fields = {"X-Forwarded-Proto": "https"}
    answer = await server.ask("POST", "/auth", LOGIN, key=None, fields=fields)
    assert answer.field("Set-Cookie").endswith("; Secure")


@pytest_twisted.ensureDeferred
async def test_logging_out_ends_the_session_everywhere(server):
    """Here, in the workers, and in the browser."""
    answer = await server.ask("POST", "/auth", LOGIN, key=None)
    cookie = {"Cookie": f"authorizationToken={answer.json['authorizationToken']}",
              "Sec-Fetch-Site": "same-origin"}  # fmt: skip
    answer = await server.ask("POST", "/auth", {"command": "logout"}, key=None, fields=cookie)
    assert (answer.status, answer.json) == (200, {"success": True})
    assert "Max-Age=0" in answer.field("Set-Cookie")
    assert (await server.ask("GET", "deployments", key=None, fields=cookie)).status == 401
    assert not any(principal.session for principal in server.workers.principals)


@pytest.mark.parametrize("params", [["pk_wrong"], ["ps_admin"], [""]])
@pytest_twisted.ensureDeferred
async def test_a_wrong_key_does_not_log_in(server, params):
    """401, and the key is not repeated."""
    answer = await server.ask("POST", "/auth", {"command": "login", "params": params}, key=None)
    assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")
    assert answer.field("WWW-Authenticate") == 'Bearer realm="ploinky"'
    assert not params[0] or params[0].encode() not in answer.body


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "command"),
        ({"command": "become"}, "command"),
        ({"command": "login"}, "params"),
        ({"command": "login", "params": "pk_admin"}, "params"),
        ({"command": "login", "params": [1]}, "params[0]"),
        ({"command": "login", "params": ["a", "b"]}, "params"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_not_a_login_is_told_apart(server, body, field):
    """400 with the field that does not fit."""
    answer = await server.ask("POST", "/auth", body, key=None)
    assert (answer.status, set(answer.json["details"])) == (400, {field})


@pytest_twisted.ensureDeferred
async def test_guessing_keys_slows_down(server):
    """429 says when to come back; others are not held up, and it passes."""
    wrong = {"command": "login", "params": ["pk_wrong"]}
    for _ in range(10):
        assert (await server.ask("POST", "/auth", wrong, key=None)).status == 401
    answer = await server.ask("POST", "/auth", LOGIN, key=None)
    assert (answer.status, answer.code) == (429, "TOO_MANY_REQUESTS")
    assert answer.field("Retry-After") == "6"
    other = await server.ask("POST", "/auth", LOGIN, key=None, peer="203.0.113.10")
    assert other.status == 200
    server.clock.advance(6)
    assert (await server.ask("POST", "/auth", LOGIN, key=None)).status == 200


@pytest_twisted.ensureDeferred
async def test_a_guesser_behind_a_trusted_proxy_is_told_from_others_behind_it(serve):
    """What the proxy says counts, as far as it is trusted and no further."""
    server = await serve(trusted_proxies=("10.0.0.0/8",))
    wrong = {"command": "login", "params": ["pk_wrong"]}

    async def status(peer: str) -> int:
        return (await server.ask("POST", "/auth", wrong, key=None, peer=peer)).status

    for number in range(10):
        forged = f"198.51.100.{number}"
        assert await status(f"{forged}, 203.0.113.9, 10.0.0.2, 10.0.0.1") == 401
    assert await status("198.51.100.99, 203.0.113.9, 10.0.0.1") == 429
    assert await status("203.0.113.10, 10.0.0.1") == 401
    assert await status("unknown, 10.0.0.1") == 401


@pytest_twisted.ensureDeferred
async def test_check_auth_never_refuses(server):
    """Whoever asks who they are is told, also that they are nobody."""
    for fields in ({}, {"Authorization": "Bearer pk_wrong"}, {"Cookie": "authorizationToken=x"},
                   {"Authorization": "Basic YTpi"}):  # fmt: skip
        answer = await server.ask("GET", "check-auth", key=None, fields=fields)
        assert (answer.status, answer.json) == (200, {"authenticated": False})
    answer = await server.ask("GET", "check-auth", key="caller")
    assert answer.json == {"authenticated": True, "userId": "cleo", "role": "caller", "scope": []}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://localhost:8000"}, 200),
        ({"Origin": "https://cloud.example", "X-Forwarded-Host": "cloud.example"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8000"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_change_with_the_cookie_must_come_from_our_own_pages(server, fields, status):
    """Other sites cannot make a browser change anything; reading is not a change."""
    cookie = {"Cookie": "authorizationToken=pk_admin", **fields}
    body = {"name": "new.example"}
    answer = await server.ask("POST", "domains", body, key=None, fields=cookie)
    assert answer.status == status
    assert (await server.ask("GET", "domains", key=None, fields=cookie)).status == 200
    with_key = {**fields, "Authorization": "Bearer pk_admin"}
    answer = await server.ask("DELETE", "domains/localhost", key=None, fields=with_key)
    assert answer.status == 200


@pytest_twisted.ensureDeferred
async def test_with_auth_none_everybody_is_admin_on_this_machine(serve):
    """No key is asked for, but a foreign page or name does not get in."""
    server = await serve(with_keys=False, auth="none")
    body = {"domain": "localhost", "path": "/demo", "agent": "demo"}
    assert (await server.ask("POST", "deployments", body, key=None)).status == 200
    who = await server.ask("GET", "check-auth", key=None)
    assert who.json == {"authenticated": True, "userId": "Admin", "role": "admin", "scope": []}
    evil = {"Origin": "http://evil.example"}
    assert (await server.ask("POST", "deployments", body, key=None, fields=evil)).status == 403
    answer = await server.ask("GET", "deployments", key=None, host="rebound.example.com")
    assert (answer.status, answer.code) == (403, "FORBIDDEN")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "", "cloud.example"])
@pytest_twisted.ensureDeferred
async def test_auth_none_does_not_listen_to_the_world(serve, host):
    """The start is refused with what to set instead."""
    with pytest.raises(SettingsInvalid, match="host must be loopback"):
        await serve(with_keys=False, auth="none", host=host)


@pytest_twisted.ensureDeferred
async def test_auth_none_listens_to_the_world_for_those_who_say_it_twice(serve):
    """Then everybody is an admin indeed, by whatever name they come."""
    server = await serve(with_keys=False, auth="none", everybody_is_admin=True, host="0.0.0.0")
    answer = await server.ask("GET", "deployments", key=None, host="cloud.example")
    assert answer.status == 200
    evil = {"Origin": "http://evil.example"}
    body = {"name": "x.example"}
    assert (await server.ask("POST", "domains", body, key=None, fields=evil)).status == 403


@pytest_twisted.ensureDeferred
async def test_saying_it_once_too_often_opens_nothing(serve):
    """Without auth none the setting has no effect."""
    server = await serve(everybody_is_admin=True)
    assert (await server.ask("GET", "deployments", key=None)).status == 401
