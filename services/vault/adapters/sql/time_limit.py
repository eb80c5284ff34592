"""How long a query may look through documents: one that finds no end must not keep the database from others."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.shared.errors import FlowStackError, Reason

QUERY_SECONDS_MAX: Final = 20.0
"""Less than the 30 s that a call without a deadline gets, so that the caller is told what was the matter."""

_STEPS: Final = 500
"""Of SQLite's machine between two looks at the clock. Reading a large document is one, and takes milliseconds."""
_CANCELED: Final = "57014"
"""PostgreSQL's code for a statement that has taken too long."""


class Watch:
    """Ends statements that take too long."""

    def __init__(self, seconds_max: float) -> None:
        self._seconds_max = seconds_max
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
        return self._deadline_s is not None and time.monotonic() > self._deadline_s

    @asynccontextmanager
    async def limit(self, connection: AsyncConnection) -> AsyncIterator[None]:
        """Limits the statement within the block.

        Raises:
            FlowStackError: CALL_TIME_LIMIT.
        """
        if connection.dialect.name == "postgresql":
            await connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(self._seconds_max * 1000)}")
        self._deadline_s = time.monotonic() + self._seconds_max
        try:
            yield
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) == _CANCELED or str(error.orig) == "interrupted":
                raise _took_too_long(self._seconds_max) from error
            raise
        finally:
            self._deadline_s = None


def _took_too_long(seconds: float) -> FlowStackError:
    return FlowStackError(
        Reason.CALL_TIME_LIMIT,
        f"The query looked through documents for {seconds:g} s without coming to an end. Sort by one field, or demand "
        "one value of a field: an index of it is being made, so that the same call is quick in a while.",
    )
