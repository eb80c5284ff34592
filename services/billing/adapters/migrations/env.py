"""What Alembic runs its steps in."""

from __future__ import annotations

from services.billing.adapters.sql.tables import METADATA
from services.shared.database.environment import run_migrations

run_migrations(METADATA)
