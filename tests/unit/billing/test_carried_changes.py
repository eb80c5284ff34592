"""A contract to come is carried over to the subscription that begins before it: its terms are that one's history."""

from __future__ import annotations

from services.billing.adapters.sql.database import Database
from services.billing.domain.model import ChangeState
from services.billing.service.paging import PageRequest
from tests.support.books import Books
from tests.support.clock import DAY_US, ManualClock
from tests.support.subscription_history import wish


async def test_a_contract_that_began_in_a_later_subscription_is_in_its_history(database: Database) -> None:
    clock = ManualClock()
    books = Books(database, clock)
    account_id = await books.open_account("free")
    agreement = wish(
        plan_id="professional",
        price_micro=300_000_000,
        session_limit=7_000,
        effective_us=clock.now_us() + 40 * DAY_US,
    )
    agreed = await books.subscriptions.put_contract(books.wish(account_id), agreement)
    clock.advance_us(DAY_US)
    begun = await books.subscriptions.change_plan(books.wish(account_id), "starter", 0)
    current = begun.record.standing.subscription
    assert current.subscription_id != agreed.record.standing.subscription.subscription_id

    clock.advance_us(50 * DAY_US)
    await books.settle()
    changes = (await books.subscriptions.get(account_id, PageRequest(10, ""))).changes.items
    (applied,) = [one for one in changes if one.change_id == agreed.record.change.change_id]
    assert applied.state is ChangeState.APPLIED
    assert applied.subscription_id == current.subscription_id
    for moment_us, limit in ((agreement.effective_us, 1_000), (clock.now_us(), 7_000)):
        terms = await database.transact(
            lambda t, us=moment_us: t.subscriptions.terms_before(current.subscription_id, us)
        )
        assert terms is not None
        assert terms.session_limit == limit
