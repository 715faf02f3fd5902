"""Deployments, releases, repositories, domains, and who may do what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Lay the first tables; ``localhost`` is there from the start."""
    op.create_table(
        "deployments",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("active_release", sa.Integer, nullable=False),
        sa.Column("wanted", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.UniqueConstraint("domain", "path", name="deployments_key"),
    )
    op.create_table(
        "releases",
        sa.Column(
            "deployment",
            sa.Text,
            sa.ForeignKey("deployments.id", ondelete="CASCADE", name="releases_deployment"),
            primary_key=True,
        ),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("commit_id", sa.Text, nullable=False),
        sa.Column("image", sa.Text, nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("request_environment_sealed", sa.LargeBinary, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("environment_sealed", sa.LargeBinary, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "repositories",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("branch", sa.Text, nullable=False),
        sa.Column("credential_sealed", sa.LargeBinary),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    domains = op.create_table(
        "domains",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("enabled", sa.Boolean, nullable=False),
    )
    op.create_table(
        "principals",
        sa.Column("token_hash", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("scope", sa.JSON, nullable=False),
        sa.Column("session", sa.Boolean, nullable=False),
    )
    op.create_index(
        "principals_key_id",
        "principals",
        ["id"],
        unique=True,
        sqlite_where=sa.text("session = 0"),
    )
    op.bulk_insert(domains, [{"name": "localhost", "enabled": True}])
