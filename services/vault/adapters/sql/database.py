"""The vault's database."""

from __future__ import annotations

from contextlib import AbstractContextManager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.shared.database.store import SqlStore, open_engine
from services.vault.adapters.migrations.steps import MIGRATIONS, OWNER
from services.vault.adapters.sql.changes import ChangeLog
from services.vault.adapters.sql.documents import SqlDocuments
from services.vault.adapters.sql.indexes import SqlIndexes
from services.vault.adapters.sql.queries import SqlQueries
from services.vault.adapters.sql.time_limit import Watch
from services.vault.adapters.sql.upkeep import SqlUpkeep
from services.vault.store import Changes, Transaction


class SqlTransaction:
    """One transaction."""

    def __init__(self, connection: AsyncConnection, watch: Watch, changes: ChangeLog) -> None:
        self.documents = SqlDocuments(connection, changes)
        self.queries = SqlQueries(connection, watch)
        self.indexes = SqlIndexes(connection)
        self.upkeep = SqlUpkeep(connection)


class Database(SqlStore[Transaction]):
    """The vault's store on SQLite or PostgreSQL."""

    def __init__(self, engine: AsyncEngine, watch: Watch) -> None:
        self._log = ChangeLog()
        super().__init__(engine, OWNER, lambda connection: SqlTransaction(connection, watch, self._log))

    def changes(self, account_id: str, collection: str) -> AbstractContextManager[Changes]:
        """Notes what happens to a collection within the block, on SQLite."""
        return self._log.changes(account_id, collection)


async def open_database(address: str, watch: Watch | None = None) -> Database:
    """Opens the database at `address` and asserts that it can serve; see `open_engine`.

    Args:
        address: `sqlite:///path` or `postgresql://…`.
        watch: how long statements may look through documents.

    Raises:
        StartupError: it cannot be opened, another process owns it, or its schema is not the current one.
    """
    engine = await open_engine(address, MIGRATIONS)
    watch = watch or Watch()
    await watch.start(engine)
    return Database(engine, watch)
