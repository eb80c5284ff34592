"""Changes of one subscription in the same microsecond: the store has them in the order in which they were made."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from services.billing.adapters.migrations.steps import MIGRATIONS
from services.billing.adapters.sql.database import Database, open_database
from services.billing.domain.contracts import ContractWish
from services.billing.domain.model import SubscriptionChange
from services.billing.service.paging import PageRequest
from services.shared.database.command import bring_to
from tests.support.books import Books
from tests.support.clock import ManualClock
from tests.support.database import connection_to, read_rows

UNSET = ContractWish("", 0, "", 0, 0, None, None, (), None, None, None, None, (), "")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def books(database: Database, clock: ManualClock) -> Books:
    return Books(database, clock)


async def change(books: Books, account_id: str, *plan_ids: str) -> list[SubscriptionChange]:
    """Changes to one plan after the other; the clock stands."""
    answers = [await books.subscriptions.change_plan(books.wish(account_id), plan_id, 0) for plan_id in plan_ids]
    return [answer.record.change for answer in answers]


async def test_the_last_of_several_upgrades_says_what_the_terms_were(books: Books, clock: ManualClock) -> None:
    for _ in range(4):
        account_id = await books.open_account("hobbyist")
        clock.advance(3_600)
        made = await change(books, account_id, "starter", "professional")
        assert {one.effective_us for one in made} == {clock.now_us()}
        contract = replace(UNSET, plan_id="professional", price_micro=300_000_000, session_limit=7_000)
        answer = await books.subscriptions.put_contract(books.wish(account_id), contract)
        change_ = answer.record.change
        assert change_.effective_us == clock.now_us()

        terms = await books.context.store.transact(
            lambda t, of=change_.subscription_id: t.subscriptions.terms_before(of, clock.now_us() + 1)
        )
        assert terms is not None
        assert terms.session_limit == 7_000


async def test_the_last_of_several_beginnings_is_the_subscription_of_the_time(books: Books, clock: ManualClock) -> None:
    for _ in range(4):
        account_id = await books.open_account("free")
        (begun,) = await change(books, account_id, "starter")
        found = await books.context.store.transact(lambda t, of=account_id: t.subscriptions.at(of, clock.now_us()))
        assert found.subscription_id == begun.subscription_id
        assert found.anchor_us == clock.now_us()


async def test_changes_of_one_moment_are_listed_as_they_were_made(books: Books) -> None:
    account_id = await books.open_account("hobbyist")
    made = await change(books, account_id, "starter", "professional", "starter", "hobbyist", "starter", "hobbyist")
    listed: list[SubscriptionChange] = []
    token = ""
    while True:
        page = (await books.subscriptions.get(account_id, PageRequest(2, token))).changes
        listed += page.items
        token = page.next_token
        if not token:
            break
    assert [one.change_id for one in listed[:-1]] == [one.change_id for one in reversed(made)]
    assert listed[-1].from_terms is None, "the account's first subscription"


async def test_changes_from_before_they_were_numbered_keep_the_order_of_their_times(
    empty: str, clock: ManualClock
) -> None:
    await bring_to(MIGRATIONS, empty, "head", allow_loss=False, check=False)
    database = await open_database(empty)
    books = Books(database, clock)
    wanted: dict[str, list[str]] = {}
    for _ in range(2):
        account_id = await books.open_account("hobbyist")
        for plan_id in ("starter", "professional"):
            clock.advance(1)
            (made,) = await change(books, account_id, plan_id)
            wanted.setdefault(account_id, []).append(made.change_id)
    await database.close()

    await bring_to(MIGRATIONS, empty, "0007", allow_loss=True, check=False)
    await bring_to(MIGRATIONS, empty, "head", allow_loss=False, check=False)
    rows = sorted(read_rows(empty, "subscription_changes"), key=lambda row: row["sequence"])
    for account_id, change_ids in wanted.items():
        of_account = [row for row in rows if row["account_id"] == account_id]
        assert [row["sequence"] for row in of_account] == [1, 2, 3]
        assert [row["change_id"] for row in of_account[1:]] == change_ids
    with connection_to(empty) as connection:
        assert connection.execute(text("SELECT min(sequence) FROM subscription_changes")).scalar_one() == 1

    database = await open_database(empty)
    books = Books(database, clock)
    account_id, change_ids = next(iter(wanted.items()))
    (made,) = await change(books, account_id, "starter")
    page = (await books.subscriptions.get(account_id, PageRequest(10, ""))).changes
    assert [one.change_id for one in page.items][:3] == [made.change_id, *reversed(change_ids)]
    await database.close()
