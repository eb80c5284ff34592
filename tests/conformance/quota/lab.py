"""A store under test, with power over its clock and its medium. A new kind of store adds one Medium."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from services.quota.adapters.sqlite import SqliteStore
from services.quota.domain.commands import Command, Done, Result
from services.quota.domain.cursors import Position
from services.quota.domain.model import Entitlement, Quota, Session, SessionEvent, partition_of
from services.quota.store import Store
from services.shared.errors import Reason
from tests.support.clock import ManualClock
from tests.support.quota import (
    ACCOUNT,
    HOLD_US,
    commit,
    done,
    entitlement,
    new_session_id,
    one,
    reason_of,
    release,
    reserve,
    results_of,
)


class Medium(Protocol):
    """Where a kind of store keeps its state, and how that can fail."""

    async def open(self, clock: ManualClock) -> Store:
        """Opens the store, as the service does when it starts."""
        ...

    def crash(self) -> None:
        """Brings the medium into the state that a kill -9 of the store's process would leave now."""
        ...

    def fail(self) -> None:
        """From now on nothing can be stored."""
        ...

    def mend(self) -> None:
        """Everything can be stored again."""
        ...


class SqliteMedium:
    """A file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._life = 0
        self._store: SqliteStore | None = None

    @property
    def _path(self) -> Path:
        return self._folder / f"life-{self._life}" / "quota.db"

    async def open(self, clock: ManualClock) -> Store:
        self._store = SqliteStore.open(self._path, clock, HOLD_US)
        return self._store

    def crash(self) -> None:
        # The files as they are now, which is all that a process leaves that is killed now.
        left = self._path.parent
        self._life += 1
        shutil.copytree(left, self._path.parent)

    def fail(self) -> None:
        self._query_only("ON")

    def mend(self) -> None:
        self._query_only("OFF")

    def _query_only(self, value: str) -> None:
        # SQLite itself then refuses every write transaction. The writer is idle while a test does this.
        assert self._store is not None
        self._store._connection.execute(f"PRAGMA query_only = {value}")


MEDIA: dict[str, Callable[[Path], Medium]] = {"sqlite": SqliteMedium}


@dataclass
class Lab:
    """A store under test and everything around it."""

    medium: Medium
    store: Store
    clock: ManualClock
    retired: list[Store] = field(default_factory=list)

    async def restart(self) -> None:
        """Closes the store in good order and opens it again."""
        await self.store.close()
        self.store = await self.medium.open(self.clock)

    async def crash(self) -> None:
        """Opens what a kill -9 at this moment would leave."""
        self.medium.crash()
        self.retired.append(self.store)
        self.store = await self.medium.open(self.clock)

    async def close(self) -> None:
        """Closes every store that is open."""
        for store in (*self.retired, self.store):
            await store.close()

    async def serve(self) -> None:
        """Lets the store serve something that changes nothing."""
        await self.store.quota(ACCOUNT)

    async def served_for_the_hold(self) -> None:
        """Lets the store serve for as long as it holds expiry back, so that leases expire on time from here on."""
        await self.serve()
        self.clock.advance_us(HOLD_US)
        await self.serve()

    def new_id(self) -> str:
        """A session id made now."""
        return new_session_id(self.clock)

    async def entitle(self, given: Entitlement | None = None) -> Entitlement:
        """Stores an entitlement."""
        return await self.store.put_entitlement(given or entitlement())

    async def run(self, *commands: Command) -> list[Result]:
        """The results of one batch."""
        return await results_of(self.store, commands)

    async def reserved(self, account_id: str = ACCOUNT, **parameters: object) -> Session:
        """A new session, reserved."""
        return done(await one(self.store, reserve(self.new_id(), account_id, **parameters))).session  # type: ignore[arg-type]

    async def committed(self, account_id: str = ACCOUNT) -> Session:
        """A new session, committed."""
        session = await self.reserved(account_id)
        return done(await one(self.store, commit(session.session_id, account_id))).session

    async def released(self, account_id: str = ACCOUNT) -> Session:
        """A new session, released."""
        session = await self.reserved(account_id)
        return done(await one(self.store, release(session.session_id, account_id))).session

    async def succeeds(self, command: Command) -> Done:
        """The success of a lone command."""
        return done(await one(self.store, command))

    async def fails(self, command: Command) -> Reason:
        """The reason of a lone command's failure."""
        return reason_of(await one(self.store, command))

    async def quota(self, account_id: str = ACCOUNT) -> Quota:
        """The account's quota, which has to be there."""
        quota = await self.store.quota(account_id)
        assert quota is not None
        return quota

    async def counts(self, account_id: str = ACCOUNT) -> tuple[int, int]:
        """(committed, reserved) of the account's current period."""
        quota = await self.quota(account_id)
        return quota.managed_sessions + quota.byok_sessions, quota.sessions_reserved

    async def state(self, session: Session) -> str:
        """The name of a session's state."""
        found = await self.store.session(session.account_id, session.session_id)
        assert found is not None
        return found.state.name

    async def events(self, account_id: str = ACCOUNT, after: int = 0, time_us: int = 0) -> list[SessionEvent]:
        """All events of the account's partition after a position, read in pages of two."""
        found: list[SessionEvent] = []
        at = Position(partition_of(account_id), after, time_us)
        while True:
            page = await self.store.read_events(at, 2)
            assert len(page.events) <= 2
            found += page.events
            if page.events:
                at = place_of(page.events[-1])
            if not page.has_more:
                return found
            assert page.events, "there is more, so there has to be something"

    async def acknowledge_all(self, account_id: str = ACCOUNT) -> Position:
        """Acknowledges everything that the account's partition has."""
        position = place_of((await self.events(account_id))[-1])
        await self.store.acknowledge([position])
        return position


def place_of(event: SessionEvent) -> Position:
    """Where an event stands."""
    return Position(event.partition, event.position, event.time_us)


def accounts_of_one_partition(count: int) -> list[str]:
    """Accounts whose events share a partition."""
    partition = partition_of(ACCOUNT)
    found = (name for name in (f"acct_{number}" for number in range(100_000)) if partition_of(name) == partition)
    return [next(found) for _ in range(count)]
