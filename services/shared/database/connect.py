"""Engines for the databases that a service can work on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.shared.errors import Reason
from services.shared.settings import StartupError


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose database it is, as messages name it."""

    service: str
    """The service's name."""
    setting: str
    """The variable that holds the address."""
    unavailable: Reason
    """What a call is answered while the database does not answer."""
    repeat: str
    """How a change is repeated of which nobody knows whether it holds; ends a sentence."""


CONNECTIONS_MAX: Final = 10
"""Of one replica to PostgreSQL, kept open; a transaction is over in milliseconds."""

CONNECT_TIMEOUT_S: Final = 5
"""How long a connection to PostgreSQL, or a free one of the pool, may take."""

SESSION_SETTINGS: Final = {
    # A replica that hangs in the middle of a transaction is not to keep others from the rows that it has locked.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "5s",
    "statement_timeout": "30s",
}
"""Of every connection to PostgreSQL, unless the address brings `options` of its own."""


def engine_for(address: str, owner: Owner) -> AsyncEngine:
    """The engine of the database at `address`; nothing is connected yet.

    Raises:
        StartupError: the address is none, or of a kind that services cannot work on.
    """
    url = _url(address, owner)
    return _sqlite(url, owner) if url.get_backend_name() == "sqlite" else _postgresql(url, owner)


def name_of(engine: AsyncEngine) -> str:
    """What a database is called in a message: never with its password."""
    if engine.dialect.name == "sqlite":
        return str(engine.url.database)
    return engine.url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)


def cannot_use(engine: AsyncEngine, error: DBAPIError, owner: Owner) -> StartupError:
    """The sentence about a database that cannot be opened."""
    return StartupError(_explain(engine.url, error, owner))


def _url(address: str, owner: Owner) -> URL:
    try:
        url = make_url(address)
    except ArgumentError:
        raise StartupError(f"{owner.setting} is not a database address. Use sqlite:///path or postgresql://…") from None
    if url.drivername == "sqlite" and url.database and url.database != ":memory:":
        return url.set(drivername="sqlite+aiosqlite")
    if url.drivername == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    raise StartupError(f"{owner.setting} names {url.drivername}. Use sqlite:///path or postgresql://…")


def _sqlite(url: URL, owner: Owner) -> AsyncEngine:
    assert url.database is not None
    try:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartupError(
            f"The folder of {url.database} cannot be made ({error.strerror}). Correct {owner.setting}, or its "
            "permissions."
        ) from error
    # One connection, kept for good. Two on one file are what SQLite up to 3.51.2 can corrupt a WAL with.
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_recycle=-1, connect_args={"timeout": 0})

    @event.listens_for(engine.sync_engine, "connect")
    def _connected(connection: Any, _: object) -> None:
        # The driver begins a transaction at the first write. Reads before it see the same: nobody else is on the file.
        connection.isolation_level = "IMMEDIATE"
        cursor = connection.cursor()
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def _postgresql(url: URL, owner: Owner) -> AsyncEngine:
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S}
    if "options" not in url.query:
        arguments["options"] = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
    try:
        return create_async_engine(
            url,
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            pool_size=CONNECTIONS_MAX,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT_S,
            connect_args=arguments,
        )
    except ModuleNotFoundError as error:
        raise StartupError(
            f"{owner.setting} names PostgreSQL, and its driver {error.name} is not installed. Install psycopg, or use "
            "sqlite:///path."
        ) from None


def _explain(url: URL, error: DBAPIError, owner: Owner) -> str:
    if url.get_backend_name() != "sqlite":
        return (
            f"{owner.setting}: the database cannot be reached or used ({type(error.orig).__name__}). Check the address."
        )
    if "locked" in str(error.orig):
        return (
            f"Another process has {url.database} open. Stop it, or set {owner.setting} to another file: "
            f"one {owner.service} process owns its file alone."
        )
    return (
        f"{url.database} cannot be used as {owner.service}'s database ({error.orig}). Move it away, or set "
        f"{owner.setting}."
    )
