"""A database of an earlier version, opened by this one."""

from __future__ import annotations

import pytest_twisted
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from twisted.internet.task import Clock

from ploinky.store.keys import SqliteKeyStore
from ploinky.values import Principal, Role


@pytest_twisted.ensureDeferred
async def test_keys_of_the_first_version_hold_and_its_sessions_end(path, database_at):
    """Nobody knows which key those were opened with, and so when they would have to end."""
    engine = create_engine(URL.create("sqlite", database=str(path)))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "ploinky.store:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for token, name, session in (("a", "Admin", 0), ("b", "ci", 0), ("c", "Admin", 1)):
            row = f"('{token}', '{name}', 'deployer', NULL, '[\"a.example\"]', {session})"
            connection.execute(text(f"INSERT INTO principals VALUES {row}"))
    engine.dispose()
    database = database_at(path)
    await database.open()
    keys = SqliteKeyStore(Clock(), database)
    kept = await keys.principals()
    assert [(one.id, one.token_hash, one.scope) for one in kept] == [
        ("Admin", "a", ("a.example",)),
        ("ci", "b", ("a.example",)),
    ]
    await keys.add_principal(
        Principal("Admin", Role.DEPLOYER, "d", expires_at=9.0, session=True, parent="a")
    )
    await keys.remove_principal("a")
    assert [one.token_hash for one in await keys.principals()] == ["b"]
