"""Documents, and what storing and deleting one under a condition does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.shared.errors import FlowStackError, Reason, invalid_request
from services.vault.domain.codes import body_of
from services.vault.domain.json_text import JsonError, parse

FIELD: Final = "document_json"

Randomness = Callable[[int], bytes]
"""Gives that many unpredictable bytes; `secrets.token_bytes` outside of tests."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a document is kept."""

    account_id: str
    collection: str
    key: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about a document that is kept, expired or not. Times are microseconds since 1970."""

    document_id: int
    version: int
    create_us: int
    expire_us: int
    """0 where it does not expire."""
    size_bytes: int

    def is_live(self, now_us: int) -> bool:
        """Whether it has not expired."""
        return not self.expire_us or self.expire_us > now_us


@dataclass(frozen=True, slots=True)
class Document:
    """A document as callers see it."""

    collection: str
    key: str
    text: str
    """Its JSON, as it was stored."""
    version: int
    create_us: int
    update_us: int
    expire_us: int


@dataclass(frozen=True, slots=True)
class Content:
    """What is stored under a key."""

    text: str
    body: str
    """The projection that filters and sorts look at."""


@dataclass(frozen=True, slots=True)
class Account:
    """How much an account's documents take, and may."""

    used_bytes: int
    """Expired documents that have not been swept away yet included."""
    expired_bytes: int
    """Of these, or 0 where they have not been asked for."""
    capacity_bytes: int


def read_content(text: str) -> Content:
    """Checks a document.

    Raises:
        FlowStackError: INVALID_REQUEST about `document_json`.
    """
    try:
        value = parse(text)
        if not isinstance(value, dict):
            raise JsonError("must be a JSON object")
        return Content(text, body_of(value))
    except JsonError as error:
        raise invalid_request(FIELD, str(error)) from None


def size_of(key: str, text: str) -> int:
    """The bytes that a document counts: its key's and its text's."""
    return len(key.encode()) + len(text.encode())


def new_key(now_us: int, randomness: Randomness) -> str:
    """A key for a document that came without one: 14 hexadecimal digits of the time and 18 of randomness.

    The time is in microseconds, as it is told within the account's lock: two stores of a caller that wait for one
    another fall into the same millisecond, and their documents are to stay in their order.
    """
    return f"{now_us:014x}{randomness(9).hex()}"


def check_version(kept: Facts | None, if_version: int | None, now_us: int) -> None:
    """Refuses a change whose condition does not hold.

    Args:
        kept: what is kept under the key.
        if_version: the version that it has to have; 0 for none at all, None for any.
        now_us: the time.

    Raises:
        FlowStackError: VERSION_MISMATCH, with current_version in its metadata, 0 where there is no document.
    """
    current = kept.version if kept is not None and kept.is_live(now_us) else 0
    if if_version is None or if_version == current:
        return
    what = f"has version {current}" if current else "is not there"
    demanded = f"version {if_version}" if if_version else "that there be none"
    raise FlowStackError(
        Reason.VERSION_MISMATCH,
        f"The document {what}, and the call demanded {demanded}. Retrieve it, and repeat the call with the version "
        "that it has.",
        metadata={"current_version": str(current)},
    )


def check_capacity(account: Account, kept: Facts | None, size_bytes: int, now_us: int) -> None:
    """Refuses a document that would take the account beyond its capacity; one that shrinks is always taken.

    Args:
        account: the account.
        kept: what is kept under the key; it counts among the expired where it has expired.
        size_bytes: what the new document counts.
        now_us: the time.

    Raises:
        FlowStackError: VAULT_CAPACITY_EXCEEDED.
    """
    growth = size_bytes - (kept.size_bytes if kept is not None and kept.is_live(now_us) else 0)
    used = account.used_bytes - account.expired_bytes
    if growth <= 0 or used + growth <= account.capacity_bytes:
        return
    raise FlowStackError(
        Reason.VAULT_CAPACITY_EXCEEDED,
        f"The account's documents use {used:,} of {account.capacity_bytes:,} bytes, and this one would add {growth:,}. "
        "Delete documents, or store them with a ttl.",
        metadata={"used_bytes": str(used), "capacity_bytes": str(account.capacity_bytes)},
    )
