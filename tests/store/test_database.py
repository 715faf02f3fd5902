"""The database file: made, migrated, kept private, and refused where it cannot be trusted."""

from __future__ import annotations

import os
import sqlite3
import stat

import attrs
import pytest
import pytest_twisted
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from ploinky.errors import StateUnusable
from ploinky.security.secrets import SecretBox
from ploinky.source_values import GitCredential, Repository
from ploinky.store.deployments import SqliteDeploymentStore
from ploinky.store.repositories import SqliteRepositoryStore
from ploinky.store.tables import METADATA
from ploinky.testing.contracts.store import DEMO, release

BOX = SecretBox(b"k" * 32, os.urandom)


@pytest_twisted.ensureDeferred
async def test_only_its_owner_may_read_it(path, database_at):
    """Database, log and index are 0600, whatever the umask says."""
    before = os.umask(0)
    try:
        await database_at(path).open()
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert path.name + "-wal" in modes
    assert set(modes.values()) == {0o600}


@pytest_twisted.ensureDeferred
async def test_migrations_lead_to_the_tables_that_the_queries_expect(path, database_at):
    """A table changed without a migration, or the reverse, is found here."""
    database = database_at(path)
    await database.open()

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, METADATA))

    assert await database.run(differences) == []


@pytest_twisted.ensureDeferred
async def test_what_was_kept_is_there_after_a_restart(path, database_at):
    """Opening a database of this version again changes nothing."""
    first = database_at(path)
    await first.open()
    store = SqliteDeploymentStore(first, BOX)
    await store.save_deployment(DEMO)
    await store.save_release(release(1))
    await first.close()
    second = database_at(path)
    await second.open()
    store = SqliteDeploymentStore(second, BOX)
    assert await store.deployments() == [DEMO]
    assert await store.releases(DEMO.id) == [release(1)]


@pytest_twisted.ensureDeferred
async def test_a_switch_is_on_disk_when_it_is_acknowledged(path, database_at):
    """WAL with synchronous=FULL, and foreign keys held."""
    database = database_at(path)
    await database.open()

    def pragmas(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(text(f"PRAGMA {name}")).scalar() for name in names]

    assert await database.run(pragmas) == ["wal", 2, 1]


@pytest_twisted.ensureDeferred
async def test_a_database_of_a_newer_version_is_refused(path, database_at):
    """The message names the file and what to do; the file stays as it was."""
    database = database_at(path)
    await database.open()
    await database.close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    other.close()
    with pytest.raises(StateUnusable, match=r"ploinky\.sqlite .*newer version.*9999.*start that"):
        await database_at(path).open()
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)
    other.close()


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_no_database_is_refused(path, database_at):
    """It is named, and not overwritten."""
    path.write_text("not a database, but someone's notes" * 100)
    with pytest.raises(StateUnusable, match=r"ploinky\.sqlite cannot be used: .*not a database"):
        await database_at(path).open()
    assert path.read_text().startswith("not a database")


@pytest_twisted.ensureDeferred
async def test_a_place_that_cannot_be_written_is_refused(tmp_path, database_at):
    """The message has the path and the system's reason."""
    with pytest.raises(StateUnusable, match=r"absent/x\.sqlite cannot be opened: No such file"):
        await database_at(tmp_path / "absent" / "x.sqlite").open()


@pytest_twisted.ensureDeferred
async def test_what_fails_halfway_leaves_nothing(path, database_at):
    """A transaction is whole or it never was, tables included."""
    database = database_at(path)
    await database.open()

    def half(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE half (x)"))
        connection.execute(text("INSERT INTO domains VALUES ('half.example', 1)"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.run(half)

    def found(connection: Connection) -> list[object]:
        tables = connection.execute(text("SELECT name FROM sqlite_master WHERE name = 'half'"))
        domains = connection.execute(text("SELECT name FROM domains"))
        return [*tables.scalars(), *domains.scalars()]

    assert await database.run(found) == ["localhost"]


@pytest_twisted.ensureDeferred
async def test_secrets_do_not_lie_in_the_file(path, database_at):
    """Neither environment values nor credentials are found in what is on disk."""
    database = database_at(path)
    await database.open()
    deployments = SqliteDeploymentStore(database, BOX)
    secret = {"TOKEN": "environment-needle"}
    kept = release(1)
    request = attrs.evolve(kept.request, environment=secret)
    await deployments.save_deployment(DEMO)
    await deployments.save_release(attrs.evolve(kept, environment=secret, request=request))
    credential = GitCredential(token="token-needle", ssh_key="key-needle")
    await SqliteRepositoryStore(database, BOX).add_repository(
        Repository(name="private", url="https://git.example/x.git", credential=credential)
    )
    written = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"private" in written
    assert b"needle" not in written


@pytest_twisted.ensureDeferred
async def test_another_master_key_is_told_apart_from_a_broken_row(path, database_at):
    """Whoever starts with the wrong key is told so."""
    database = database_at(path)
    await database.open()
    store = SqliteDeploymentStore(database, BOX)
    await store.save_deployment(DEMO)
    await store.save_release(release(1))
    stranger = SqliteDeploymentStore(database, SecretBox(b"x" * 32, os.urandom))
    with pytest.raises(StateUnusable, match="master key"):
        await stranger.releases(DEMO.id)


@pytest_twisted.ensureDeferred
async def test_a_closed_database_says_so(path, database_at):
    """Rather than opening another one."""
    database = database_at(path)
    await database.open()
    await database.close()
    await database.close()
    with pytest.raises(StateUnusable, match="not open"):
        await database.run(lambda connection: None)
