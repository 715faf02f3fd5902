"""What Alembic runs for each command; `ploinky.store.database` hands it the connection.

Never imported: Alembic executes it, inside the caller's transaction, so that a
migration that fails leaves the database as it was.
"""

from __future__ import annotations

from alembic import context

from ploinky.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
)
context.run_migrations()
