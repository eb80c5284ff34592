"""A database: how it is opened, what is asserted before it serves, and its transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.shared.database.connect import Owner, cannot_use, engine_for, name_of
from services.shared.database.migrations import Migrations
from services.shared.errors import FlowStackError, Reason
from services.shared.log import get_logger
from services.shared.settings import StartupError

TransactionT = TypeVar("TransactionT")
ResultT = TypeVar("ResultT")


def _ignore(_: object) -> None:
    pass


class SqlStore(Generic[TransactionT]):
    """A service's store on SQLite or PostgreSQL."""

    def __init__(
        self,
        engine: AsyncEngine,
        owner: Owner,
        make_transaction: Callable[[AsyncConnection], TransactionT],
        committed: Callable[[TransactionT], None] = _ignore,
    ) -> None:
        """Takes an engine that has been opened.

        Args:
            engine: of the database.
            owner: whose it is.
            make_transaction: what a use case works with, on a connection that is in a transaction.
            committed: told of a transaction once it holds.
        """
        self.engine = engine
        self._owner = owner
        self._make_transaction = make_transaction
        self._committed = committed
        self._snapshots = engine.execution_options(isolation_level="REPEATABLE READ") if self.shared else engine
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def shared(self) -> bool:
        """Whether other replicas work on it too: a SQLite file is one process's alone."""
        return self.engine.dialect.name == "postgresql"

    async def transact(self, work: Callable[[TransactionT], Awaitable[ResultT]], *, snapshot: bool = False) -> ResultT:
        """Runs `work` in a transaction, which commits when it returns and is undone where it raises.

        It has a task of its own, which the caller's cancellation does not reach: SQLAlchemy gives a connection up
        that is cancelled in the middle of a statement, and SQLite must not have two on one file. On PostgreSQL it
        reaches a snapshot, which holds up nobody then and has changed nothing: the driver has the server cancel the
        statement, and as the connection is given up, a cancellation that comes late finds no other one.

        Args:
            work: reads, decides and writes.
            snapshot: everything that `work` reads is of one moment; it writes nothing. On SQLite it always is.

        Raises:
            FlowStackError: the owner's reason for a database that cannot be reached or does not answer;
                INVALID_REQUEST where a text cannot be stored in it.
        """
        task = asyncio.create_task(self._transact(work, self._snapshots if snapshot else self.engine))
        self._running.add(task)
        task.add_done_callback(self._finished)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if snapshot and self.shared:
                task.cancel()
            raise

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Asked for, so that the loop does not complain of an error that a cancelled caller did not wait for.
            task.exception()

    async def _transact(self, work: Callable[[TransactionT], Awaitable[ResultT]], engine: AsyncEngine) -> ResultT:
        decided = False
        try:
            async with engine.begin() as connection:
                transaction = self._make_transaction(connection)
                result = await work(transaction)
                decided = True
        except DataError as error:
            raise self._cannot_store(error) from error
        except (OperationalError, InterfaceError, InternalError, PoolTimeoutError) as error:
            raise self._no_answer(error, decided=decided) from error
        self._committed(transaction)
        return result

    def _cannot_store(self, _: DataError) -> FlowStackError:
        message = "The request holds text that cannot be stored, such as the character U+0000. Leave it out."
        return FlowStackError(Reason.INVALID_REQUEST, message)

    def _no_answer(self, error: Exception, *, decided: bool) -> FlowStackError:
        get_logger().error("database_failed", error_type=type(getattr(error, "orig", error)).__name__)
        # Where the connection breaks during the commit, nobody here can know on which side of it.
        what = (
            f"It is not known whether the change holds: look before you repeat it, or {self._owner.repeat}."
            if decided
            else "Nothing was changed; try again."
        )
        message = f"{self._owner.service.capitalize()}'s database does not answer. {what}"
        return FlowStackError(self._owner.unavailable, message)

    async def close(self) -> None:
        """Closes the database, when what runs has ended."""
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.engine.dispose()


Prepare = Callable[[AsyncConnection], Awaitable[None]]
"""What a service does to a SQLite file at its start, in the transaction that has brought its schema up."""


async def _nothing(_: AsyncConnection) -> None:
    pass


async def open_engine(address: str, migrations: Migrations, prepare: Prepare = _nothing) -> AsyncEngine:
    """Opens the database at `address` and asserts that it can serve.

    SQLite is brought to the current schema here, because its file belongs to this process alone. PostgreSQL is not:
    several replicas share it, and a schema changes once, when the operator says so.

    Raises:
        StartupError: it cannot be opened, another process owns it, or its schema is not the current one.
    """
    owner = migrations.owner
    engine = engine_for(address, owner)
    try:
        async with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                # The driver begins no transaction by itself for DDL, and a migration is to hold as a whole.
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
                await connection.run_sync(migrations.migrate, name_of(engine))
                await prepare(connection)
                await _assert_durable(connection, name_of(engine), owner)
            else:
                await _assert_current(connection, migrations)
    except DBAPIError as error:
        await engine.dispose()
        raise cannot_use(engine, error, owner) from error
    except BaseException:
        await engine.dispose()
        raise
    return engine


async def _assert_durable(connection: AsyncConnection, name: str, owner: Owner) -> None:
    journal_mode = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one()
    synchronous = (await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one()
    if journal_mode != "wal" or synchronous != 2:
        raise StartupError(
            f"{name}: the file system gives journal mode {journal_mode} and synchronous {synchronous}, where "
            f"WAL and FULL are needed to survive a crash. Put {owner.setting} on a local disk."
        )


async def _assert_current(connection: AsyncConnection, migrations: Migrations) -> None:
    problem = await connection.run_sync(migrations.problem_of_schema)
    if problem:
        raise StartupError(f"The database of {migrations.owner.setting} {problem}")
