"""Defects to be found: each wraps one piece of the shipped code so that it breaks one promise.

A check that finds none of these finds nothing. Nothing that is shipped knows of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from services.billing.domain.ledger import EventBatch, advanced
from services.billing.service.reader import SessionEventReader
from services.quota.adapters.sqlite import engine, events, writer
from services.quota.adapters.sqlite.engine import Engine, Transaction
from services.quota.adapters.sqlite.memory import SessionKey
from services.quota.adapters.sqlite.writer import Writer
from services.quota.domain import decide
from services.quota.domain.commands import Change, Commit, Decision, Release, Reserve
from services.quota.domain.cursors import Position
from services.quota.domain.entitlements import in_force
from services.quota.domain.model import Account, EventType, InForce, Session, SessionState
from services.quota.store import EventPage
from services.router import session as router_session
from services.router.domain.quota import Grant
from services.router.resolver import Resolver
from services.shared.errors import FlowStackError, Reason

Planted = Callable[[], Any]
MUTANTS: dict[str, Planted] = {}


def plant(mutant: Planted) -> Planted:
    """Registers a mutant under its function's name."""
    MUTANTS[mutant.__name__] = mutant
    return mutant


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Runs the block with a mutant in the place of the shipped code."""
    with MUTANTS[name]():
        yield


@contextmanager
def swapped(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Puts what `make` makes of an attribute in its place, for the block."""
    shipped = owner.__dict__[name]
    setattr(owner, name, make(shipped))
    try:
        yield
    finally:
        setattr(owner, name, shipped)


@plant
def admits_one_too_many() -> Any:
    """The limit is compared with > in the place of >=."""

    def make(shipped: Any) -> Any:
        def refusal(account: Account, command: Reserve, now_us: int, force: InForce | None) -> Any:
            if force is not None:
                force = force._replace(term=force.term._replace(session_limit=force.term.session_limit + 1))
            return shipped(account, command, now_us, force)

        return refusal

    return swapped(decide, "_refusal", make)


@plant
def ignores_concurrency() -> Any:
    """The number of sessions at once is not looked at."""

    def make(shipped: Any) -> Any:
        def refusal(account: Account, command: Reserve, now_us: int, force: InForce | None) -> Any:
            error = shipped(account, command, now_us, force)
            limited = error is not None and error.reason is Reason.CONCURRENCY_LIMIT_EXCEEDED
            return None if limited else error

        return refusal

    return swapped(decide, "_refusal", make)


@plant
def keeps_counters_of_failed_commits() -> Any:
    """A failed commit is rolled back in the file, and not in the counters that memory holds."""

    def make(shipped: Any) -> Any:
        def recover(self: Engine, **options: Any) -> None:
            kept = self.memory.accounts
            shipped(self, **options)
            self.memory.accounts = kept

        return recover

    return swapped(Engine, "recover", make)


@plant
def answers_before_the_commit() -> Any:
    """Callers are answered once the decision is made, and the commit follows."""

    def make(shipped: Any) -> Any:
        def run(self: Writer, jobs: list[Any]) -> None:
            group = self._engine.prepare(writer._steps(jobs), self._clock.now_us(), self._clock.monotonic_s())
            self._answer(jobs, [result for results in group.results for result in results])

            def done(failure: Exception | None) -> None:
                if failure is None:
                    self._committed([], group._replace(results=[]), None)
                else:
                    self._fail([], failure)

            self._committer.commit(self._engine.commit, done)

        return run

    return swapped(Writer, "_run", make)


@plant
def counts_a_repeated_commit_twice() -> Any:
    """A commit that comes again counts again."""

    def make(shipped: Any) -> Any:
        def commit(command: Commit, now_us: int, stored: Session | None) -> Decision:
            decision = shipped(command, now_us, stored)
            if decision.replayed:
                return decision._replace(change=Change(decision.session, False, 0, 0, 1, None))
            return decision

        return commit

    def take(shipped: Any) -> Any:
        def tolerant(self: Transaction, account: Account, key: SessionKey, change: Change) -> None:
            if change.event is None and change.byok:
                self.memory.add_reserved(account.partition, key, change.session)
            shipped(self, account, key, change)

        return tolerant

    return _both(swapped(decide, "_commit", make), swapped(Transaction, "_take", take))


@contextmanager
def _both(*parts: Any) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for part in parts:
            stack.enter_context(part)
        yield


@plant
def expires_without_a_hold() -> Any:
    """Leases end on time even where quota was not there to be committed to."""
    return swapped(Engine, "may_expire", lambda _: lambda self, now_us: True)


@plant
def keeps_the_unit_of_an_expired_lease() -> Any:
    """A lease that ends gives nothing back."""

    def make(shipped: Any) -> Any:
        return lambda session, now_us: shipped(session, now_us)._replace(reserved=0)

    return swapped(engine, "expire", make)


@plant
def stores_events_with_the_next_group() -> Any:
    """Events leave memory one commit after the change that they tell of: a crash between the two loses them."""

    def make(shipped: Any) -> Any:
        def write(self: Transaction) -> Any:
            kept, later = getattr(self.memory, "later", []), list(self._events)
            self._events[:] = kept
            self.memory.later = later  # type: ignore[attr-defined]
            return shipped(self)

        return write

    return swapped(Transaction, "write", make)


@plant
def forgets_tombstones() -> Any:
    """A release of an unknown session is answered and leaves nothing behind."""

    def make(shipped: Any) -> Any:
        return lambda command, now_us: shipped(command, now_us)._replace(change=None)

    return swapped(decide, "_tombstone", make)


@plant
def reserves_over_a_tombstone() -> Any:
    """A reserve that comes after its own release is granted."""

    def make(shipped: Any) -> Any:
        def repeat(command: Reserve, stored: Session) -> Decision:
            if stored.is_tombstone:
                return Decision(stored, False, None, None)
            return shipped(command, stored)

        return repeat

    return swapped(decide, "_repeat_of_reserve", make)


@plant
def lets_the_clock_go_back() -> Any:
    """Quota's clock is the wall clock."""

    def make(shipped: Any) -> Any:
        def prepare(self: Engine, work: Sequence[Any], wall_us: int, monotonic_s: float) -> Any:
            self.memory.clock_us, self._last_now_us = 0, None
            return shipped(self, work, wall_us, monotonic_s)

        return prepare

    return swapped(Engine, "prepare", make)


@plant
def promises_a_watermark_ahead() -> Any:
    """The watermark runs ahead of the durable clock."""

    def make(shipped: Any) -> Any:
        def read_page(transaction: Transaction, after: Position, limit: int) -> EventPage:
            page = shipped(transaction, after, limit)
            return page._replace(watermark_us=transaction.now_us + 3_000_000)

        return read_page

    return swapped(events, "read_page", make)


@plant
def skips_an_event() -> Any:
    """Where several events wait, the first one is passed over, and the cursor with it."""

    def make(shipped: Any) -> Any:
        def read_page(transaction: Transaction, after: Position, limit: int) -> EventPage:
            page = shipped(transaction, after, limit)
            return page._replace(events=page.events[1:]) if len(page.events) > 1 else page

        return read_page

    return swapped(events, "read_page", make)


@plant
def prunes_what_nobody_has() -> Any:
    """What is old enough is pruned, acknowledged or not."""
    return swapped(
        events,
        "_prunable_up_to",
        lambda _: lambda transaction, partition: transaction.memory.partitions[partition].position,
    )


@plant
def releases_what_was_committed() -> Any:
    """A release of a counted session is taken."""

    def make(shipped: Any) -> Any:
        def release(command: Release, now_us: int, stored: Session | None) -> Decision:
            if stored is not None and stored.state is SessionState.COMMITTED:
                session = stored._replace(state=SessionState.RELEASED, resolve_us=now_us, release_reason=command.reason)
                return Decision(session, False, None, Change(session, False, 0, 0, -1, EventType.RELEASED))
            return shipped(command, now_us, stored)

        return release

    return _both(swapped(decide, "_release", make), _tolerant_memory())


def _tolerant_memory() -> Any:
    def make(shipped: Any) -> Any:
        def remove(self: Any, partition: int, key: SessionKey) -> None:
            if key in self.reserved:
                shipped(self, partition, key)

        return remove

    return swapped(engine.Memory, "remove_reserved", make)


@plant
def commits_what_has_expired() -> Any:
    """A commit that comes after the lease has ended counts after all."""

    def make(shipped: Any) -> Any:
        def commit(command: Commit, now_us: int, stored: Session | None) -> Decision:
            if stored is not None and stored.state is SessionState.EXPIRED:
                session = stored._replace(state=SessionState.COMMITTED, resolve_us=now_us, outcome=command.outcome)
                return Decision(session, False, None, Change(session, False, 0, 0, 1, EventType.COMMITTED))
            return shipped(command, now_us, stored)

        return commit

    return _both(swapped(decide, "_commit", make), _tolerant_memory())


@plant
def forgets_request_ids() -> Any:
    """A request_id is not looked up."""
    return swapped(Transaction, "_request_holder", lambda _: lambda self, command: None)


@plant
def counts_in_the_period_of_the_commit() -> Any:
    """A session counts in the period in which it ends."""

    def make(shipped: Any) -> Any:
        def take(self: Transaction, account: Account, key: SessionKey, change: Change) -> None:
            force = in_force(account, self.now_us)
            shipped(self, account, key, change)
            moved = force is not None and force.period_start_us != change.session.period_start_us
            if change.event is EventType.COMMITTED and moved:
                assert force is not None
                old = account.counters[change.session.period_start_us]
                new = account.counters.setdefault(force.period_start_us, type(old)())
                old.managed, new.managed = old.managed - change.managed, new.managed + change.managed
                old.byok, new.byok = old.byok - change.byok, new.byok + change.byok
                self._counters.add((account.account_id, force.period_start_us))

        return take

    return swapped(Transaction, "_take", make)


@plant
def starts_without_a_grant() -> Any:
    """A router that does not reach quota starts the session all the same."""

    def make(shipped: Any) -> Any:
        async def reserve(self: Any) -> Grant:
            try:
                return await shipped(self)
            except router_session._BrokenError:
                return Grant(await self._world.quota.get_quota(self._assignment.customer.account_id), False)

        return reserve

    return swapped(router_session.Session, "_reserve", make)


@plant
def moves_the_cursor_before_it_stores() -> Any:
    """Billing moves its cursor in one transaction and stores the entries in another."""

    def make(shipped: Any) -> Any:
        async def take(self: Any, batch: EventBatch) -> Any:
            moved = advanced(self._held, batch._replace(watermarks=()))
            if moved:
                end_us = self._context.clock.now_us() + self._lease_us
                await self._context.store.transact(lambda t: t.partitions.advance(tuple(moved.values()), end_us))
            return await shipped(self, batch)

        return take

    return swapped(SessionEventReader, "_take", make)


@plant
def gives_resolutions_up() -> Any:
    """A router sends a commit once, and forgets it where no answer comes: it loses what it owes."""

    def make(shipped: Any) -> Any:
        async def resolve(self: Any, claim: Any, ending: Any, outcome: Any) -> Any:
            try:
                return await self._send(claim, ending, outcome)
            except FlowStackError:
                return None

        return resolve

    return swapped(Resolver, "_resolve", make)


@plant
def charges_expired_leases() -> Any:
    """A lease that ends is counted: the customer pays for a router's crash."""

    def make(shipped: Any) -> Any:
        def expired(session: Session, now_us: int) -> Change:
            committed = session._replace(state=SessionState.COMMITTED, resolve_us=now_us)
            return Change(committed, False, -1, 0, 1, EventType.COMMITTED)

        return expired

    return swapped(engine, "expire", make)


def names() -> list[str]:
    """Every mutant, in the order in which they stand here."""
    return list(MUTANTS)
