"""What Alembic runs its steps in: the connection that the caller has open."""

from __future__ import annotations

from alembic import context

from services.billing.adapters.sql.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
