"""What happens to a collection while somebody looks through it in several transactions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class ChangesOfCollection:
    """What has happened to a collection. A transaction that was undone may be among it, which does no harm."""

    def __init__(self, account_id: str, collection: str) -> None:
        self.place = (account_id, collection)
        self.document_ids: set[int] = set()

    def take(self) -> set[int]:
        """What has happened since the last time."""
        taken, self.document_ids = self.document_ids, set()
        return taken


class ChangeLog:
    """Notes changes for those who look. Of a SQLite file all changes come by here: it is one process's alone."""

    def __init__(self) -> None:
        self._looking: list[ChangesOfCollection] = []

    @contextmanager
    def changes(self, account_id: str, collection: str) -> Iterator[ChangesOfCollection]:
        """Notes what happens to a collection within the block."""
        changes = ChangesOfCollection(account_id, collection)
        self._looking.append(changes)
        try:
            yield changes
        finally:
            self._looking.remove(changes)

    def note(self, account_id: str, collection: str, document_ids: Iterable[int]) -> None:
        """Documents are stored or deleted in the transaction that runs."""
        for changes in self._looking:
            if changes.place == (account_id, collection):
                changes.document_ids.update(document_ids)
