"""The store on one SQLite file: one process, one connection, one writer."""

from services.quota.adapters.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
