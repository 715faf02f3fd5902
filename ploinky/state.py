"""What is kept, opened: the database, the key to its secrets, and the stores on top of it.

A part of the roots, which name concrete classes: the leader and `ploinky.maintenance` open the
same data directory in the same way.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ploinky.leader_interfaces import ISecretBox
from ploinky.security.secrets import (
    FILE_NAME,
    VARIABLE,
    SecretBox,
    fingerprint,
    key_in_force,
    master_keys,
    settle_key,
)
from ploinky.store.audit import SqliteAuditTrail
from ploinky.store.database import Database
from ploinky.store.deployments import SqliteDeploymentStore
from ploinky.store.hooks import SqliteHookStore
from ploinky.store.keys import SqliteKeyStore
from ploinky.store.metrics import SqliteMetricsStore
from ploinky.store.repositories import SqliteRepositoryStore
from ploinky.store.resealing import note_key, sealed_with
from ploinky.store.snapshots import SqliteSnapshots
from ploinky.store.tasks import SqliteTaskStore
from ploinky.store_interfaces import (
    IAuditTrail,
    IDeploymentStore,
    IHookStore,
    IKeyStore,
    IMetricsStore,
    IRepositoryStore,
    ISnapshots,
    ITaskStore,
)
from ploinky.threads import Blocking

DATABASE = "ploinky.sqlite"
"""The file's name in the data directory."""


@frozen
class Stores:
    """What is kept."""

    deployments: IDeploymentStore
    repositories: IRepositoryStore
    keys: IKeyStore
    tasks: ITaskStore
    hooks: IHookStore
    audit: IAuditTrail
    metrics: IMetricsStore
    snapshots: ISnapshots


def master_key_file(data_directory: Path) -> Path | None:
    """Say which file holds the master key; None where a variable does."""
    return None if os.environ.get(VARIABLE) else data_directory / FILE_NAME


def stores_of(
    clock: IReactorTime, database: Database, box: ISecretBox, copying: Blocking
) -> Stores:
    """Give the stores on an open database.

    Args:
        copying: Threads other than the database's, for copies of it.
    """
    return Stores(
        SqliteDeploymentStore(database, box),
        SqliteRepositoryStore(database, box),
        SqliteKeyStore(clock, database),
        SqliteTaskStore(clock, database),
        SqliteHookStore(database, box),
        SqliteAuditTrail(database),
        SqliteMetricsStore(database),
        SqliteSnapshots(database, copying),
    )


async def open_box(data_directory: Path, database: Database) -> SecretBox:
    """Give the box that the secrets in a database are sealed with; a rotation is finished first.

    Raises:
        SettingsInvalid: The master key is not the one.
        StateUnusable: A secret does not open with it.
    """
    noted = await sealed_with(database)
    keys = master_keys(data_directory, os.environ, secrets.token_bytes, is_new=not noted)
    key = key_in_force(keys, noted)
    settle_key(data_directory, key)
    box = SecretBox(key, secrets.token_bytes)
    if not noted:
        await note_key(database, box, fingerprint(key))
    return box
