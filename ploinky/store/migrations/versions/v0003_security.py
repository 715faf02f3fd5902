"""What a key ends with and when it was used; webhooks, the audit trail, the master key in force."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Sessions end here: nobody knows which key they were opened with."""
    op.create_table(
        "principals_next",
        sa.Column("token_hash", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("scope", sa.JSON, nullable=False),
        sa.Column("session", sa.Boolean, nullable=False),
        sa.Column(
            "parent",
            sa.Text,
            sa.ForeignKey("principals.token_hash", ondelete="CASCADE", name="principals_parent"),
        ),
        sa.Column("created_at", sa.Float, nullable=False, server_default="0"),
        sa.Column("last_used_at", sa.Float),
    )
    op.execute(
        "INSERT INTO principals_next (token_hash, id, role, expires_at, scope, session)"
        " SELECT token_hash, id, role, expires_at, scope, session FROM principals"
        " WHERE session = 0"
    )
    op.drop_table("principals")
    op.rename_table("principals_next", "principals")
    op.create_index(
        "principals_key_id", "principals", ["id"], unique=True, sqlite_where=sa.text("session = 0")
    )
    op.create_table(
        "hooks",
        sa.Column(
            "deployment",
            sa.Text,
            sa.ForeignKey("deployments.id", ondelete="CASCADE", name="hooks_deployment"),
            primary_key=True,
        ),
        sa.Column("secret_sealed", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
    )
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit"
            " BEGIN SELECT RAISE(ABORT, 'the audit trail is only ever added to'); END"
        )
    op.create_table("sealed_with", sa.Column("fingerprint", sa.Text, primary_key=True))
