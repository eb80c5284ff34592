"""How long a statement may look through documents: one that finds no end must not keep the database from others.

On PostgreSQL others go on meanwhile, and the statement ends after the time that a query may take. SQLite has one
connection, for which all others wait: there it ends after a turn, and the use case goes on in smaller pieces.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.vault.domain.looking import QUERY_SECONDS_MAX, took_too_long
from services.vault.store import TurnOver

TURN_SECONDS: Final = 0.1
"""How long others wait for one statement on SQLite."""

_STEPS: Final = 500
"""Of SQLite's machine between two looks at the clock. Reading a large document is one, and takes milliseconds."""
_BY_INDEX: Final = dict.fromkeys(
    ("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "enable_sort", "enable_gathermerge"),
    "off",
)
"""PostgreSQL's planner knows nothing of what is within documents. It takes a filter for one that leaves next to
nothing, so that it would rather look through all of them than read the index in order until there are enough."""
_CANCELED: Final = "57014"
"""PostgreSQL's code for a statement that has taken too long."""


class Watch:
    """Ends statements that take too long."""

    def __init__(self, seconds_max: float = QUERY_SECONDS_MAX, turn_s: float = TURN_SECONDS) -> None:
        self._seconds_max = seconds_max
        self._turn_s = turn_s
        # SQLite has one connection, so that one statement runs at a time.
        self._deadline_s: float | None = None

    async def start(self, engine: AsyncEngine) -> None:
        """Makes SQLite ask now and then; it has one connection, which is kept. PostgreSQL is told at each query."""
        if engine.dialect.name != "sqlite":
            return
        async with engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.set_progress_handler(self._is_over, _STEPS)

    def _is_over(self) -> bool:
        return self._deadline_s is not None and time.monotonic() >= self._deadline_s

    @asynccontextmanager
    async def limit(self, connection: AsyncConnection, *, has_turns: bool, by_index: bool) -> AsyncIterator[None]:
        """Limits the statement within the block.

        Args:
            connection: what it runs on.
            has_turns: whether it can be done in smaller pieces.
            by_index: whether it reads documents by an index of ours, entry after entry.

        Raises:
            TurnOver: its turn has passed, on SQLite.
            FlowStackError: CALL_TIME_LIMIT, the time of a whole query has.
        """
        has_turns &= connection.dialect.name == "sqlite"
        if connection.dialect.name == "postgresql":
            settings = {"statement_timeout": str(round(self._seconds_max * 1000))} | (_BY_INDEX if by_index else {})
            until_the_end = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
            await connection.exec_driver_sql(f"SELECT {until_the_end}")
        self._deadline_s = time.monotonic() + (self._turn_s if has_turns else self._seconds_max)
        try:
            yield
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) == _CANCELED or str(error.orig) == "interrupted":
                raise (TurnOver() if has_turns else took_too_long(self._seconds_max)) from error
            raise
        finally:
            self._deadline_s = None
