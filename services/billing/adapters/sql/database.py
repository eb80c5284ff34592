"""Billing's database."""

from __future__ import annotations

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.billing.adapters.migrations.steps import MIGRATIONS, OWNER
from services.billing.adapters.sql.accounts import SqlAccounts, SqlApiKeys
from services.billing.adapters.sql.audit import SqlAudit, SqlDueAccounts
from services.billing.adapters.sql.invoices import SqlInvoices
from services.billing.adapters.sql.ledger import SqlLedger
from services.billing.adapters.sql.partitions import SqlPartitions
from services.billing.adapters.sql.payments import SqlPayments
from services.billing.adapters.sql.rollups import SqlRollups
from services.billing.adapters.sql.subscriptions import SqlEntitlements, SqlRequests, SqlSubscriptions
from services.billing.adapters.sql.tables import PARTITION_CURSORS, READER_REPLICAS
from services.billing.store import Transaction
from services.shared.database.store import SqlStore, open_engine


class SqlTransaction:
    """One transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.accounts = SqlAccounts(connection)
        self.api_keys = SqlApiKeys(connection)
        self.subscriptions = SqlSubscriptions(connection)
        self.entitlements = SqlEntitlements(connection)
        self.ledger = SqlLedger(connection)
        self.rollups = SqlRollups(connection)
        self.partitions = SqlPartitions(connection)
        self.requests = SqlRequests(connection)
        self.invoices = SqlInvoices(connection)
        self.audit = SqlAudit(connection)
        self.due_accounts = SqlDueAccounts(connection)
        self.payments = SqlPayments(connection)


class Database(SqlStore[Transaction]):
    """Billing's store on SQLite or PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine, OWNER, SqlTransaction)


async def open_database(address: str) -> Database:
    """Opens the database at `address` and asserts that it can serve; see `open_engine`.

    Raises:
        StartupError: it cannot be opened, another process owns it, or its schema is not the current one.
    """
    return Database(await open_engine(address, MIGRATIONS, _free_leases))


async def _free_leases(connection: AsyncConnection) -> None:
    # The file is this process's alone, so that what earlier ones had leased is free.
    await connection.execute(update(PARTITION_CURSORS).values(owner="", lease_end_us=0))
    await connection.execute(delete(READER_REPLICAS))
