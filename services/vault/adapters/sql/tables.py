"""The tables. Times are microseconds since 1970, 0 where unset.

A change here goes with a migration; a test holds the two against each other.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, Table, Text, text
from sqlalchemy.types import TypeEngine, UserDefinedType

METADATA: Final = MetaData()


class JsonbText(UserDefinedType[str]):
    """PostgreSQL's JSONB, given as text and never read back whole."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in SQL."""
        return "JSONB"


# PostgreSQL compares by the database's locale otherwise, and SQLite byte by byte.
BYTEWISE: Final[TypeEngine[str]] = Text().with_variant(Text(collation="C"), "postgresql")
BODY: Final[TypeEngine[str]] = Text().with_variant(JsonbText(), "postgresql")
# SQLite numbers rows by itself where the column is exactly INTEGER.
ROW_ID: Final[TypeEngine[int]] = BigInteger().with_variant(Integer(), "sqlite")


def _text(name: str, *, primary_key: bool = False) -> Column[str]:
    return Column(name, BYTEWISE, primary_key=primary_key, nullable=False)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


ACCOUNTS: Final = Table(
    "accounts",
    METADATA,
    _text("account_id", primary_key=True),
    _number("used_bytes"),
    # When billing is asked next whether the account is to be purged.
    _number("check_us"),
    Index("accounts_by_check", "check_us"),
)

COLLECTIONS: Final = Table(
    "collections",
    METADATA,
    _text("account_id", primary_key=True),
    _text("collection", primary_key=True),
    _number("document_count"),
    _number("size_bytes"),
    _number("update_us"),
)

DOCUMENTS: Final = Table(
    "documents",
    METADATA,
    Column("document_id", ROW_ID, primary_key=True, autoincrement=True),
    _text("account_id"),
    _text("collection"),
    _text("key"),
    Column("version", Integer, nullable=False),
    _number("create_us"),
    _number("update_us"),
    _number("expire_us"),
    _number("size_bytes"),
    # Before the text, so that a filter need not go past it.
    Column("body", BODY, nullable=False),
    Column("text", Text, nullable=False),
    Index("documents_by_key", "account_id", "collection", "key", unique=True),
    Index("documents_by_creation", "account_id", "collection", "create_us", "key"),
    Index("documents_by_update", "account_id", "collection", "update_us", "key"),
    Index(
        "documents_by_expiry",
        "expire_us",
        "account_id",
        "collection",
        "size_bytes",
        postgresql_where=text("expire_us > 0"),
        sqlite_where=text("expire_us > 0"),
    ),
)

SORT_INDEXES: Final = Table(
    "sort_indexes",
    METADATA,
    Column("index_id", ROW_ID, primary_key=True, autoincrement=True),
    _text("account_id"),
    _text("collection"),
    # The encoded names of the path, as a JSON array.
    _text("path"),
    Column("state", Integer, nullable=False),
    # While it is built: the key up to which documents have been entered.
    _text("built_key"),
    _number("last_use_us"),
    Index("sort_indexes_by_path", "account_id", "collection", "path", unique=True),
    Index("sort_indexes_by_state", "state", "index_id"),
)

SORT_ENTRIES: Final = Table(
    "sort_entries",
    METADATA,
    Column("index_id", ROW_ID, ForeignKey(SORT_INDEXES.c.index_id), primary_key=True, autoincrement=False),
    _text("value", primary_key=True),
    _text("key", primary_key=True),
    Column("document_id", ROW_ID, ForeignKey(DOCUMENTS.c.document_id, ondelete="CASCADE"), nullable=False),
    Index("sort_entries_by_document", "document_id", "index_id", unique=True),
    sqlite_with_rowid=False,
)
