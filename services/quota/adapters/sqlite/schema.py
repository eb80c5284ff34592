"""The file: its tables, its version, and the guarantees that are asserted before it is used."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path
from typing import Final

from services.shared.settings import StartupError

VERSION: Final = 1
"""Raised with each change of the tables, with the step that brings an older file here."""

TABLES: Final = """
CREATE TABLE meta (
    only_row  INTEGER PRIMARY KEY CHECK (only_row = 1),
    epoch     TEXT    NOT NULL,
    clock_us  INTEGER NOT NULL
) STRICT;

CREATE TABLE entitlements (
    account_id        TEXT    PRIMARY KEY,
    revision          INTEGER NOT NULL,
    subscription_id   TEXT    NOT NULL,
    period_anchor_us  INTEGER NOT NULL,
    terms             TEXT    NOT NULL,
    end_us            INTEGER NOT NULL,
    block             TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE counters (
    account_id       TEXT    NOT NULL,
    period_start_us  INTEGER NOT NULL,
    reserved         INTEGER NOT NULL CHECK (reserved >= 0),
    managed          INTEGER NOT NULL CHECK (managed >= 0),
    byok             INTEGER NOT NULL CHECK (byok >= 0),
    PRIMARY KEY (account_id, period_start_us)
) STRICT, WITHOUT ROWID;

-- Session ids are ordered by time, so rows are appended at the end of the tree, whatever the number of accounts.
CREATE TABLE sessions (
    session_id            TEXT    NOT NULL,
    account_id            TEXT    NOT NULL,
    state                 INTEGER NOT NULL,
    candidates            TEXT    NOT NULL,
    period_start_us       INTEGER NOT NULL,
    reserve_us            INTEGER NOT NULL,
    expire_us             INTEGER NOT NULL,
    resolve_us            INTEGER NOT NULL,
    served_mode           INTEGER,
    outcome               BLOB,
    release_reason        INTEGER NOT NULL,
    request_id            TEXT    NOT NULL,
    api_key_id            TEXT    NOT NULL,
    labels                TEXT    NOT NULL,
    entitlement_revision  INTEGER NOT NULL,
    PRIMARY KEY (session_id, account_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX reserved_sessions ON sessions (reserve_us) WHERE state = 1;

CREATE TABLE requests (
    account_id  TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    session_id  TEXT NOT NULL,
    PRIMARY KEY (account_id, request_id)
) STRICT, WITHOUT ROWID;

-- The outbox. Rows stay until their session is pruned, so it is the order of pruning too.
CREATE TABLE events (
    partition   INTEGER NOT NULL,
    position    INTEGER NOT NULL,
    type        INTEGER NOT NULL,
    time_us     INTEGER NOT NULL,
    account_id  TEXT    NOT NULL,
    session_id  TEXT    NOT NULL,
    PRIMARY KEY (partition, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE partitions (
    partition     INTEGER PRIMARY KEY,
    acknowledged  INTEGER NOT NULL,
    pruned        INTEGER NOT NULL
) STRICT;
"""


def open_database(path: Path) -> sqlite3.Connection:
    """Opens the file, makes it on first use, and asserts what durability rests on.

    Raises:
        StartupError: another process owns the file, it is newer than this version knows, it is no database, or the
            file system cannot give what the store needs.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    except (OSError, sqlite3.Error) as error:
        raise StartupError(_explain(path, error)) from error
    try:
        # Exclusive: the process that has the file keeps it, and no second connection exists. SQLite up to 3.51.2 can
        # corrupt a WAL that two connections reset.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = _version(connection, path)
        journal_mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("BEGIN IMMEDIATE")
        if version == 0:
            _create(connection)
        connection.execute("COMMIT")
        synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    except sqlite3.Error as error:
        connection.close()
        raise StartupError(_explain(path, error)) from error
    except StartupError:
        connection.close()
        raise
    if journal_mode != "wal" or synchronous != 2:
        connection.close()
        raise StartupError(
            f"{path}: the file system gives journal mode {journal_mode} and synchronous {synchronous}, where WAL and "
            "FULL are needed to survive a crash. Put FLOWSTACK_QUOTA_STORE on a local disk."
        )
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema's version, read before anything is changed; 0 where the file is new.

    Raises:
        StartupError: a newer version of quota wrote the file, or another program.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise StartupError(
            f"{path} was written by a newer version of quota (schema {version}, this one knows {VERSION}). "
            "Run that version, or set FLOWSTACK_QUOTA_STORE to another file."
        )
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StartupError(f"{path} is another program's database. Set FLOWSTACK_QUOTA_STORE to another file.")
    return version


def _create(connection: sqlite3.Connection) -> None:
    for statement in TABLES.split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES (1, ?, 0)", (secrets.token_hex(8),))
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _explain(path: Path, error: Exception) -> str:
    if "locked" in str(error):
        return (
            f"Another process has {path} open. Stop it, or set FLOWSTACK_QUOTA_STORE to another file: "
            "one quota process owns its file alone."
        )
    return f"{path} cannot be used as quota's database ({error}). Move it away, or set FLOWSTACK_QUOTA_STORE."
