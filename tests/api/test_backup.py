"""``POST backup``: the archive as it comes over HTTP, and what is written down of it."""

from __future__ import annotations

import io
import json

import pytest_twisted

from ploinky.backup.archive import Reader

PASSPHRASE = "correct horse battery staple"


def members(data: bytes, passphrase: str = "") -> dict[str, bytes]:
    """Read it to its end."""
    reader = Reader(io.BytesIO(data), passphrase)
    found = {}
    while member := reader.member():
        found[member.name] = member.content
    return found


@pytest_twisted.ensureDeferred
async def test_a_sealed_backup_holds_the_master_key_and_a_plain_one_does_not(server):
    """What the key opens is in either."""
    answer = await server.ask("POST", "backup", {"passphrase": PASSPHRASE})
    assert (answer.status, answer.field("Content-Type")) == (200, "application/octet-stream")
    assert ".backup" in answer.field("Content-Disposition")
    assert b"needle" not in answer.body
    assert members(answer.body, PASSPHRASE)["master.key"] == b"needle of a key"
    answer = await server.ask("POST", "backup", {})
    assert answer.field("Content-Type") == "application/gzip"
    assert ".tar.gz" in answer.field("Content-Disposition")
    assert set(members(answer.body)) == {"database.sqlite/000000"}


@pytest_twisted.ensureDeferred
async def test_a_short_passphrase_is_refused(server):
    """Whoever has the file may guess for ever."""
    answer = await server.ask("POST", "backup", {"passphrase": "hunter2"})
    assert (answer.status, answer.code) == (400, "VALIDATION_FAILED")
    assert "12 characters" in answer.json["details"]["passphrase"]


@pytest_twisted.ensureDeferred
async def test_whoever_takes_one_is_on_record(server):
    """Without the passphrase; who was refused one, too."""
    await server.ask("POST", "backup", {"passphrase": PASSPHRASE})
    await server.ask("POST", "backup", {}, key="deployer")
    entries = (await server.ask("GET", "audit")).json["entries"]
    assert [(e["user"], e["action"], e["subject"], e["code"]) for e in entries] == [
        ("dora", "backup", "/management/api/backup", "FORBIDDEN"),
        ("Admin", "backup", "sealed", ""),
    ]
    assert PASSPHRASE not in json.dumps(entries)


@pytest_twisted.ensureDeferred
async def test_a_cookie_alone_makes_none(server):
    """A page of another site cannot have an admin's browser fetch one."""
    cookie = {"Cookie": "authorizationToken=pk_admin"}
    answer = await server.ask("POST", "backup", {}, key=None, fields=cookie)
    assert (answer.status, answer.code) == (403, "FORBIDDEN")
