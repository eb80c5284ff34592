"""How entries get into the ledger, whichever way a store takes many at once."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from services.billing.adapters.sql.database import Database, open_database
from services.billing.domain.ledger import LedgerEntry, PositionedEntry
from services.billing.ledger_store import LedgerInsert, SessionFilter
from services.billing.store import Transaction
from services.shared.errors import FlowStackError, Reason
from tests.unit.billing.test_ledger_model import add_accounts

ACCOUNT = "acct_known"
AWKWARD = ("\\N", "\\", "\\.", "\t", "a\tb", "\n", "\r\n", "\x01", '"', "'", "", "\u2028", "\U0001f600")


def entry(session_id: str, **fields: object) -> LedgerEntry:
    blank = LedgerEntry(
        ACCOUNT, session_id, 1, 1, 2, 1, 1, 2, 1, 2, "", "", 0, None, None, None, None, None, False,
        0, 0, "", "", "{}", "{}", 1,
    )  # fmt: skip
    return blank._replace(**fields)


async def append(database: Database, *entries: LedgerEntry) -> LedgerInsert:
    positioned = [PositionedEntry(1, "c", one) for one in entries]
    return await database.transact(lambda transaction: transaction.ledger.insert(positioned, 1))


async def read(database: Database, session_id: str) -> LedgerEntry:
    wanted = SessionFilter(ACCOUNT, session_id=session_id)
    found = await database.transact(lambda transaction: transaction.ledger.sessions(wanted, None, 10, 10))
    (entry,) = found.entries
    return entry


async def test_awkward_text_and_unknown_numbers_come_back_as_they_were(database: Database) -> None:
    await add_accounts(database, [ACCOUNT])
    entries = [
        entry(f"ses_{number}", request_id=value, served_model=value, input_tokens=tokens, tokens_estimated=bool(tokens))
        for number, (value, tokens) in enumerate(
            (value, tokens) for value in AWKWARD for tokens in (None, 0, 2**31 - 1)
        )
    ]
    assert (await append(database, *entries)).entries == entries
    assert [await read(database, one.session_id) for one in entries] == entries


async def test_a_repeat_within_a_batch_and_one_of_an_earlier_batch_are_left_out(database: Database) -> None:
    await add_accounts(database, [ACCOUNT])
    await append(database, entry("ses_1"))
    inserted = await append(
        database, entry("ses_1", request_id="again"), entry("ses_2"), entry("ses_2"), entry("ses_3")
    )
    assert [one.session_id for one in inserted.entries] == ["ses_2", "ses_3"]
    assert (await read(database, "ses_1")).request_id == ""


async def test_text_that_no_store_takes_is_refused_and_the_connection_goes_on(billing_postgres: str) -> None:
    database = await open_database(billing_postgres)
    try:
        await add_accounts(database, [ACCOUNT])
        with pytest.raises(FlowStackError) as caught:
            await append(database, entry("ses_0"), entry("ses_1", request_id="a\0b"))
        assert caught.value.reason is Reason.INVALID_REQUEST
        assert len((await append(database, entry("ses_0"))).entries) == 1
    finally:
        await database.close()


async def test_a_connection_that_is_cut_while_entries_are_sent_is_told_and_nothing_is_left(
    billing_postgres: str,
) -> None:
    database = await open_database(billing_postgres)

    async def cut_and_append(transaction: Transaction) -> None:
        cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        async with database.engine.connect() as other:
            await other.execute(cut)
        await transaction.ledger.insert([PositionedEntry(1, "c", entry("ses_1"))], 1)

    try:
        await add_accounts(database, [ACCOUNT])
        with pytest.raises(FlowStackError) as caught:
            await database.transact(cut_and_append)
        assert caught.value.reason is Reason.BILLING_UNAVAILABLE
        assert len((await append(database, entry("ses_1"))).entries) == 1
    finally:
        await database.close()
