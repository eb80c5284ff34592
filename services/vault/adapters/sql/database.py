"""The vault's database."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.shared.database.store import SqlStore, open_engine
from services.vault.adapters.migrations.steps import MIGRATIONS, OWNER
from services.vault.adapters.sql.documents import SqlDocuments
from services.vault.adapters.sql.indexes import SqlIndexes
from services.vault.adapters.sql.queries import SqlQueries
from services.vault.adapters.sql.time_limit import QUERY_SECONDS_MAX, Watch
from services.vault.adapters.sql.upkeep import SqlUpkeep
from services.vault.store import Transaction


class SqlTransaction:
    """One transaction."""

    def __init__(self, connection: AsyncConnection, watch: Watch) -> None:
        self.documents = SqlDocuments(connection)
        self.queries = SqlQueries(connection, watch)
        self.indexes = SqlIndexes(connection)
        self.upkeep = SqlUpkeep(connection)


class Database(SqlStore[Transaction]):
    """The vault's store on SQLite or PostgreSQL."""

    def __init__(self, engine: AsyncEngine, watch: Watch) -> None:
        super().__init__(engine, OWNER, lambda connection: SqlTransaction(connection, watch))


async def open_database(address: str, query_s_max: float = QUERY_SECONDS_MAX) -> Database:
    """Opens the database at `address` and asserts that it can serve; see `open_engine`.

    Args:
        address: `sqlite:///path` or `postgresql://…`.
        query_s_max: how long one look through documents may take, in seconds.

    Raises:
        StartupError: it cannot be opened, another process owns it, or its schema is not the current one.
    """
    engine = await open_engine(address, MIGRATIONS)
    watch = Watch(query_s_max)
    await watch.start(engine)
    return Database(engine, watch)
