"""The tables as the newest migration leaves them.

A change here goes together with a module in ``migrations/versions/``; a test
compares the two.  Columns named ``*_sealed`` hold what `ISecretBox.seal` gave.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

METADATA = MetaData()

DEPLOYMENTS = Table(
    "deployments",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("domain", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("active_release", Integer, nullable=False),
    Column("wanted", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    UniqueConstraint("domain", "path", name="deployments_key"),
)

RELEASES = Table(
    "releases",
    METADATA,
    Column(
        "deployment",
        Text,
        ForeignKey("deployments.id", ondelete="CASCADE", name="releases_deployment"),
        primary_key=True,
    ),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("commit_id", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("request", JSON, nullable=False),
    Column("request_environment_sealed", LargeBinary, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("environment_sealed", LargeBinary, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("created_at", Float, nullable=False),
)

REPOSITORIES = Table(
    "repositories",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("branch", Text, nullable=False),
    Column("credential_sealed", LargeBinary),
    Column("created_at", Float, nullable=False),
)

DOMAINS = Table(
    "domains",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("enabled", Boolean(create_constraint=False), nullable=False),
)

PRINCIPALS = Table(
    "principals",
    METADATA,
    Column("token_hash", Text, primary_key=True),
    Column("id", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("expires_at", Float),
    Column("scope", JSON, nullable=False),
    Column("session", Boolean(create_constraint=False), nullable=False),
    Column(
        "parent",
        Text,
        ForeignKey("principals.token_hash", ondelete="CASCADE", name="principals_parent"),
    ),
    Column("created_at", Float, nullable=False, server_default="0"),
    Column("last_used_at", Float),
)
Index("principals_key_id", PRINCIPALS.c.id, unique=True, sqlite_where=text("session = 0"))

TASKS = Table(
    "tasks",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("deployment", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("params", LargeBinary, nullable=False),
    Column("user", Text, nullable=False),
    Column("anonymous", Boolean(create_constraint=False), nullable=False),
    Column("request_id", Text, nullable=False),
    Column("once", Text, unique=True),
    Column("fingerprint", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("deliveries", Integer, nullable=False),
    Column("instance", Text, nullable=False),
    Column("queue_directory", Text, nullable=False),
    Column("deadline", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("queued_at", Float, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("finished_at", Float, nullable=False),
    Column("status", Integer, nullable=False),
    Column("outcome", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
)
Index("tasks_state", TASKS.c.state, TASKS.c.number)
Index("tasks_place", TASKS.c.domain, TASKS.c.path, TASKS.c.number)

HOOKS = Table(
    "hooks",
    METADATA,
    Column(
        "deployment",
        Text,
        ForeignKey("deployments.id", ondelete="CASCADE", name="hooks_deployment"),
        primary_key=True,
    ),
    Column("secret_sealed", LargeBinary, nullable=False),
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("user", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("code", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("hash", Text, nullable=False),
)
"""Triggers, in the migration, refuse to change or delete what is written."""

SEALED_WITH = Table(
    "sealed_with",
    METADATA,
    Column("fingerprint", Text, primary_key=True),
)
"""One row: which master key opens the columns ``*_sealed``."""


METRIC_POINTS = Table(
    "metric_points",
    METADATA,
    Column("resolution", Integer, primary_key=True, autoincrement=False),
    Column("time", Integer, primary_key=True, autoincrement=False),
    Column("deployment", Text, primary_key=True),
    Column("command", Text, primary_key=True),
    Column("status", Integer, primary_key=True, autoincrement=False),
    Column("failed_at", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("microseconds", BigInteger, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("queued_microseconds", BigInteger, nullable=False),
    Column("buckets", JSON, nullable=False),
    sqlite_with_rowid=False,
)
"""Counts of calls: resolution 0 has totals, the others one row for each stretch of so many seconds."""

METRIC_REPORTERS = Table(
    "metric_reporters",
    METADATA,
    Column("reporter", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("seen_at", Float, nullable=False),
)
"""By worker process, the number of its last report that is in `METRIC_POINTS`."""
