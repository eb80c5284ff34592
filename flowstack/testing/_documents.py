"""An account's documents. Pure: the time comes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flowstack.testing._errors import FakeError, invalid_field
from flowstack.testing._filters import Predicate, parse_filter, sort_key, value_at
from flowstack.testing._json import JsonError, parse_object

CAPACITY_BYTES: Final = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Document:
    """One document. Times are microseconds since 1970."""

    collection: str
    key: str
    text: str
    value: dict[str, Any]
    version: int
    create_us: int
    update_us: int
    expire_us: int
    """0 where it does not expire."""

    @property
    def size_bytes(self) -> int:
        """What it counts: its key's bytes and its text's."""
        return len(self.key.encode()) + len(self.text.encode())


@dataclass(slots=True)
class Documents:
    """All of an account, by collection and key."""

    _kept: dict[tuple[str, str], Document] = field(default_factory=dict)

    def store(
        self, collection: str, key: str, text: str, *, ttl_us: int | None, if_version: int | None, now_us: int
    ) -> Document:
        """Stores a document.

        Raises:
            FakeError: INVALID_REQUEST, VERSION_MISMATCH.
        """
        try:
            value = parse_object(text)
        except JsonError as error:
            raise invalid_field("document_json", str(error)) from None
        kept = self.find(collection, key, now_us)
        _check_version(kept, if_version)
        document = Document(
            collection,
            key,
            text,
            value,
            1 if kept is None else kept.version + 1,
            now_us if kept is None else kept.create_us,
            now_us,
            0 if ttl_us is None else now_us + ttl_us,
        )
        self._kept[collection, key] = document
        return document

    def find(self, collection: str, key: str, now_us: int) -> Document | None:
        """A document that has not expired."""
        found = self._kept.get((collection, key))
        if found is not None and found.expire_us and found.expire_us <= now_us:
            del self._kept[collection, key]
            return None
        return found

    def query(self, collection: str, filter_text: str, sort: Sequence[tuple[str, bool]], now_us: int) -> list[Document]:
        """The documents that a filter lets through, in order.

        Args:
            collection: the collection.
            filter_text: the filter's JSON; empty for every document.
            sort: fields, each with whether it descends; what is alike goes by key.
            now_us: the time.

        Raises:
            FakeError: INVALID_REQUEST.
        """
        wanted = _filter(filter_text)
        found = [one for one in self._live(now_us) if one.collection == collection and wanted(one.value)]
        found.sort(key=lambda one: one.key.encode())
        for path, descending in reversed(sort):
            found.sort(key=lambda one, path=path: _place(one, path), reverse=descending)  # type: ignore[misc]
        return found

    def delete(self, collection: str, key: str, if_version: int | None, now_us: int) -> int:
        """Deletes a document; answers how many there were.

        Raises:
            FakeError: VERSION_MISMATCH.
        """
        kept = self.find(collection, key, now_us)
        _check_version(kept, if_version)
        self._kept.pop((collection, key), None)
        return int(kept is not None)

    def delete_matching(self, collection: str, filter_text: str, now_us: int) -> int:
        """Deletes what a filter lets through; answers how many.

        Raises:
            FakeError: INVALID_REQUEST.
        """
        found = self.query(collection, filter_text, (), now_us)
        for one in found:
            del self._kept[one.collection, one.key]
        return len(found)

    def collections(self, now_us: int) -> dict[str, list[Document]]:
        """The documents by collection, by name."""
        found: dict[str, list[Document]] = {}
        for one in self._live(now_us):
            found.setdefault(one.collection, []).append(one)
        return dict(sorted(found.items()))

    def _live(self, now_us: int) -> list[Document]:
        return [one for place in list(self._kept) if (one := self.find(*place, now_us)) is not None]


def is_empty_filter(text: str) -> bool:
    """Whether a filter means every document."""
    try:
        return not text or not parse_object(text)
    except JsonError as error:
        raise invalid_field("filter_json", str(error)) from None


def _filter(text: str) -> Predicate:
    try:
        return parse_filter(text)
    except JsonError as error:
        raise invalid_field("filter_json", str(error)) from None


def _place(document: Document, path: str) -> tuple[Any, ...]:
    if path == "_key":
        return (document.key.encode(),)
    if path == "_create_time":
        return (document.create_us,)
    if path == "_update_time":
        return (document.update_us,)
    return sort_key(value_at(document.value, path))


def _check_version(kept: Document | None, if_version: int | None) -> None:
    current = 0 if kept is None else kept.version
    if if_version is None or if_version == current:
        return
    what = f"has version {current}" if current else "is not there"
    demanded = f"version {if_version}" if if_version else "that there be none"
    raise FakeError(
        "VERSION_MISMATCH",
        f"The document {what}, and the call demanded {demanded}. Retrieve it, and repeat the call with the version "
        "that it has.",
        metadata={"current_version": str(current)},
    )
