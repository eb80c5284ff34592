"""Indexes: made where queries wish for one, built and dropped piece by piece behind the calls."""

from __future__ import annotations

from typing import Final, NamedTuple

from services.shared.clock import Clock
from services.vault.domain.indexing import IndexState, Path, decide
from services.vault.store import Store, Transaction

DOCUMENTS_AT_ONCE: Final = 1_000
"""Entries that one transaction writes or deletes: tens of milliseconds."""
WISHES_MAX: Final = 1_000
"""What waits to be looked at; a wish beyond that is had again by the next query."""


REFUSED_S: Final = 60.0
"""How long a wish that was not granted is not looked at again: each look is a transaction."""


class Wish(NamedTuple):
    """A query that would rather have read by an index, or that was the first to use one for a while."""

    account_id: str
    collection: str
    path: Path


class Indexing:
    """Takes wishes, and does the work on indexes."""

    def __init__(self, database: Store, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._wishes: dict[Wish, None] = {}
        self._refused_s: dict[Wish, float] = {}

    def wish(self, wish: Wish) -> None:
        """Takes a wish, to be looked at later."""
        refused_s = self._refused_s.get(wish)
        if refused_s is not None and self._clock.monotonic_s() - refused_s < REFUSED_S:
            return
        if len(self._wishes) < WISHES_MAX:
            self._wishes[wish] = None

    async def run_once(self) -> bool:
        """Grants wishes, and does one piece of work; answers whether there was any."""
        wishes, self._wishes = list(self._wishes), {}
        for wish in wishes:
            if not await self._grant(wish):
                self._remember_refusal(wish)
        return await self._database.transact(_work) or bool(wishes)

    def _remember_refusal(self, wish: Wish) -> None:
        if len(self._refused_s) >= WISHES_MAX:
            self._refused_s.clear()
        self._refused_s[wish] = self._clock.monotonic_s()

    async def _grant(self, wish: Wish) -> bool:
        account_id, collection, path = wish

        async def grant(transaction: Transaction) -> bool:
            await transaction.documents.lock_account(account_id)
            now_us = self._clock.now_us()
            indexes = await transaction.indexes.of(account_id, collection)
            present = next((index for index in indexes if index.path == path), None)
            if present is not None:
                await transaction.indexes.note_use(account_id, present, now_us)
                return True
            documents = await transaction.documents.count(account_id, collection)
            of_account = await transaction.indexes.count(account_id)
            decision = decide(documents, indexes, of_account, now_us)
            if decision.is_built:
                await transaction.indexes.add(account_id, collection, path, now_us)
            if decision.dropped is not None:
                await transaction.indexes.begin_drop(account_id, decision.dropped)
            return decision.is_built or decision.dropped is not None

        return await self._database.transact(grant)


async def _work(transaction: Transaction) -> bool:
    work = await transaction.indexes.next_work()
    if work is None:
        return False
    await transaction.documents.lock_account(work.account_id)
    if work.state is IndexState.BUILDING:
        await transaction.indexes.build_some(work, DOCUMENTS_AT_ONCE)
    else:
        await transaction.indexes.drop_some(work, DOCUMENTS_AT_ONCE)
    return True
