"""Brings the schema of billing's database to a revision: `python -m services.billing.migrate`, or `make migrate`.

PostgreSQL is shared by replicas, so that its schema changes when the operator says so and never at a start. A SQLite
file is brought up by the service itself; going down takes this command there too.
"""

from __future__ import annotations

from services.billing.adapters.migrations.steps import MIGRATIONS
from services.billing.config import BillingSettings
from services.shared.database.command import migrate_by_command_line
from services.shared.process import run
from services.shared.settings import load


async def main() -> None:
    """Does what the command line says."""
    await migrate_by_command_line(MIGRATIONS, load(BillingSettings).database_url())


if __name__ == "__main__":
    run("billing", main)
