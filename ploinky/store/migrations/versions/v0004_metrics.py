"""Counts of calls: totals, and series of three resolutions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Begin to count from nothing."""
    op.create_table(
        "metric_points",
        sa.Column("resolution", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("time", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("deployment", sa.Text, primary_key=True),
        sa.Column("command", sa.Text, primary_key=True),
        sa.Column("status", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("failed_at", sa.Text, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("microseconds", sa.BigInteger, nullable=False),
        sa.Column("bytes_in", sa.BigInteger, nullable=False),
        sa.Column("bytes_out", sa.BigInteger, nullable=False),
        sa.Column("queued_microseconds", sa.BigInteger, nullable=False),
        sa.Column("buckets", sa.JSON, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "metric_reporters",
        sa.Column("reporter", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
    )
