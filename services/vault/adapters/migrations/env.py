"""What Alembic runs its steps in."""

from __future__ import annotations

from services.shared.database.environment import run_migrations
from services.vault.adapters.sql.tables import METADATA

run_migrations(METADATA)
