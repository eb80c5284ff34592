"""The database: how it is opened, what is asserted before it serves, and its transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import delete, update
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.billing.adapters.migrations.steps import migrate, problem_of_schema
from services.billing.adapters.sql.accounts import SqlAccounts, SqlApiKeys
from services.billing.adapters.sql.alerts import SqlAlerts
from services.billing.adapters.sql.audit import SqlAudit, SqlDueAccounts
from services.billing.adapters.sql.connect import SETTING, cannot_use, engine_for, name_of
from services.billing.adapters.sql.invoices import SqlInvoices
from services.billing.adapters.sql.ledger import SqlLedger
from services.billing.adapters.sql.partitions import SqlPartitions
from services.billing.adapters.sql.payments import SqlPayments
from services.billing.adapters.sql.rollups import SqlRollups
from services.billing.adapters.sql.subscriptions import SqlEntitlements, SqlRequests, SqlSubscriptions
from services.billing.adapters.sql.tables import PARTITION_CURSORS, READER_REPLICAS
from services.billing.adapters.sql.webhooks import SqlWebhooks
from services.billing.store import ResultT, Transaction
from services.shared.errors import FlowStackError, Reason
from services.shared.log import get_logger
from services.shared.settings import StartupError


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
        self.alerts = SqlAlerts(connection)
        self.webhooks = SqlWebhooks(connection)
        self.callbacks: list[Callable[[], None]] = []

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Has something called once the transaction holds; never where it is undone."""
        self.callbacks.append(callback)


class Database:
    """Billing's store on SQLite or PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._snapshots = engine.execution_options(isolation_level="REPEATABLE READ") if self.shared else engine
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def shared(self) -> bool:
        """Whether other replicas work on it too: a SQLite file is one process's alone."""
        return self.engine.dialect.name == "postgresql"

    async def transact(self, work: Callable[[Transaction], Awaitable[ResultT]], *, snapshot: bool = False) -> ResultT:
        """Runs `work` in a transaction, which commits when it returns and is undone where it raises.

        It has a task of its own, which the caller's cancellation does not reach: SQLAlchemy gives a connection up
        that is cancelled in the middle of a statement, and SQLite must not have two on one file.

        Args:
            work: reads, decides and writes.
            snapshot: everything that `work` reads is of one moment; it writes nothing. On SQLite it always is.

        Raises:
            FlowStackError: BILLING_UNAVAILABLE where the database cannot be reached or does not answer;
                INVALID_REQUEST where a text cannot be stored in it.
        """
        task = asyncio.create_task(self._transact(work, self._snapshots if snapshot else self.engine))
        self._running.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Asked for, so that the loop does not complain of an error that a cancelled caller did not wait for.
            task.exception()

    async def _transact(self, work: Callable[[Transaction], Awaitable[ResultT]], engine: AsyncEngine) -> ResultT:
        decided = False
        try:
            async with engine.begin() as connection:
                transaction = SqlTransaction(connection)
                result = await work(transaction)
                decided = True
            for callback in transaction.callbacks:
                callback()
            return result
        except DataError as error:
            message = "The request holds text that cannot be stored, such as the character U+0000. Leave it out."
            raise FlowStackError(Reason.INVALID_REQUEST, message) from error
        except (OperationalError, InterfaceError, InternalError, PoolTimeoutError) as error:
            get_logger().error("database_failed", error_type=type(getattr(error, "orig", error)).__name__)
            # Where the connection breaks during the commit, nobody here can know on which side of it.
            what = (
                "It is not known whether the change holds: look before you repeat it, or repeat it with its request_id."
                if decided
                else "Nothing was changed; try again."
            )
            message = f"Billing's database does not answer. {what}"
            raise FlowStackError(Reason.BILLING_UNAVAILABLE, message) from error

    async def close(self) -> None:
        """Closes the database, when what runs has ended."""
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.engine.dispose()


async def open_database(address: str) -> Database:
    """Opens the database at `address` and asserts that it can serve.

    SQLite is brought to the current schema here, because its file belongs to this process alone. PostgreSQL is not:
    several replicas share it, and a schema changes once, when the operator says so.

    Raises:
        StartupError: it cannot be opened, another process owns it, or its schema is not the current one.
    """
    engine = engine_for(address)
    try:
        async with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                await _assert_durable(connection, name_of(engine))
            else:
                await _assert_current(connection)
    except DBAPIError as error:
        await engine.dispose()
        raise cannot_use(engine, error) from error
    except BaseException:
        await engine.dispose()
        raise
    return Database(engine)


async def _assert_durable(connection: AsyncConnection, name: str) -> None:
    # The driver begins no transaction by itself for DDL, and a migration is to hold as a whole.
    await connection.exec_driver_sql("BEGIN IMMEDIATE")
    await connection.run_sync(migrate, name)
    # The file is this process's alone, so that what earlier ones had leased is free.
    await connection.execute(update(PARTITION_CURSORS).values(owner="", lease_end_us=0))
    await connection.execute(delete(READER_REPLICAS))
    journal_mode = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one()
    synchronous = (await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one()
    if journal_mode != "wal" or synchronous != 2:
        raise StartupError(
            f"{name}: the file system gives journal mode {journal_mode} and synchronous {synchronous}, where "
            f"WAL and FULL are needed to survive a crash. Put {SETTING} on a local disk."
        )


async def _assert_current(connection: AsyncConnection) -> None:
    problem = await connection.run_sync(problem_of_schema)
    if problem:
        raise StartupError(f"The database of {SETTING} {problem}")
