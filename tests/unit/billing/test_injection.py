"""Text that is SQL in other hands: it is stored and compared as it is, and nobody sees or changes another's rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from services.billing.adapters.sql.database import Database
from services.billing.domain.audit import Action, Actor, ActorKind, AuditChange, audit_event
from services.billing.domain.invoices import Invoice, InvoiceKind, InvoiceLine, InvoiceLineKind, InvoiceState
from services.billing.domain.ledger import LedgerEntry, LedgerKey, PositionedEntry
from services.billing.domain.model import Account, AccountState, ApiKey, ChangeState, Subscription, SupportLevel, Terms
from services.billing.domain.usage import DAY_US
from services.billing.domain.usage_query import Dimension, Granularity, Totals, UsageQuery
from services.billing.invoice_store import AuditFilter, InvoiceFilter
from services.billing.store import AccountFilter, Transaction
from services.billing.usage_store import RollupFilter, Span
from services.shared.errors import FlowStackError, Reason

CORPUS = (
    "' OR '1'='1",
    "'; DROP TABLE accounts; --",
    '" OR ""="',
    "acct_victim' --",
    "acct_victim'/*",
    "') UNION SELECT secret FROM api_keys --",
    "%",
    "_",
    "acct_%",
    "*",
    "\\' OR 1=1 --",
    "$1",
    "%s",
    "%(account_id)s",
    ":account_id",
    "?",
    "${jndi:ldap://x}",
    "1; SELECT pg_sleep(10)",
    "\u02bc OR 1=1",
    "\uff41cct_victim",
    "acct_victim ",
    "ACCT_VICTIM",
)
VICTIM = "acct_victim"
EVERYBODY = AccountFilter(tuple(AccountState), "", "")


def account(account_id: str, text: str = "x") -> Account:
    return Account(
        account_id,
        text,
        f"{text}@example.org",
        f"sub_{account_id}",
        "free",
        AccountState.ACTIVE,
        text,
        0,
        0,
        1,
        1,
        0,
        0,
        1,
    )


def subscription(account_id: str) -> Subscription:
    terms = Terms("free", 1, "", 0, 25, (), 25, 0, 25, SupportLevel.COMMUNITY, ())
    return Subscription(f"sub_{account_id}", account_id, terms, 1, 0, 1, 1, 1)


def api_key(account_id: str, text: str = "x") -> ApiKey:
    return ApiKey(f"key_{account_id}", account_id, text, b"digest", 1, 0, 0, 0, "", "")


def entry(account_id: str, text: str = "x") -> LedgerEntry:
    return LedgerEntry(
        account_id, f"ses_{text}", 1, 1, 2, 1, 1, 2, 1, 2, text, text, 0, None, None, None, None, None, False,
        0, 0, text, text, f'{{"{len(text)}":1}}', "{}", 1,
    )  # fmt: skip


def invoice_of(account_id: str, text: str) -> Invoice:
    line = InvoiceLine(1, InvoiceLineKind.FEE, text, 1, 5, 1, 2, "free", 1, "", text)
    return Invoice(
        f"inv_{account_id}", account_id, "INV-1", 1, InvoiceKind.UPGRADE, InvoiceState.OPEN, f"sub_{account_id}", 1, 2,
        text, text, text, (line,), 1, 2, payment_reference=text, void_reason=text,
    )  # fmt: skip


async def fill(transaction: Transaction, account_id: str, text: str) -> None:
    await transaction.accounts.insert(account(account_id, text))
    await transaction.subscriptions.insert(subscription(account_id))
    await transaction.api_keys.insert(api_key(account_id, text))
    await transaction.ledger.insert([PositionedEntry(1, text, entry(account_id, text))], 1)
    labels = json.dumps({"x": text, text: "x"})
    await transaction.rollups.add([entry(account_id, text)._replace(labels=labels)])
    invoice = invoice_of(account_id, text)
    await transaction.invoices.insert(invoice)
    facts = {text: text}
    event = audit_event(
        Action(Actor(ActorKind.ADMIN), "a", text, text), account_id, "r", "r", before={}, after=facts, now_us=1,
        randomness=lambda size: hashlib.sha256(account_id.encode()).digest()[:size],
    )  # fmt: skip
    await transaction.audit.insert(event)


async def test_ids_of_that_text_find_nothing_of_others(database: Database) -> None:
    await database.transact(lambda t: fill(t, VICTIM, "x"))
    await database.transact(lambda t: t.ledger.insert([PositionedEntry(1, "c", entry("acct_unknown"))], 1))

    async def attack(transaction: Transaction, text: str) -> None:
        for read in (transaction.accounts.get, transaction.accounts.lock):
            with pytest.raises(FlowStackError, match="no such account"):
                await read(text)
        assert await transaction.accounts.list(AccountFilter((), text, ""), None, 9) == []
        assert await transaction.accounts.list(AccountFilter((), "", text), None, 9) == []
        assert await transaction.accounts.list(EVERYBODY, (0, text), 9) == []
        assert await transaction.api_keys.find(text, f"key_{VICTIM}") is None
        assert await transaction.api_keys.find(VICTIM, text) is None
        assert await transaction.api_keys.find_owner(text) is None
        assert await transaction.api_keys.list(text, 1, None, 9, include_inactive=True) == []
        assert await transaction.api_keys.count_active(text, 1) == 0
        await transaction.api_keys.revoke(text, 5)
        await transaction.api_keys.note_uses({text: 5})
        await transaction.api_keys.set_rotated(replace(api_key(VICTIM), api_key_id=text, rotated_to="key_other"))
        assert await transaction.subscriptions.changes(text, None, 9) == []
        assert await transaction.subscriptions.find_change(text) is None
        await transaction.subscriptions.mark_changes([text], ChangeState.DROPPED, 5)
        for named in ((text, f"inv_{VICTIM}"), (VICTIM, text)):
            with pytest.raises(FlowStackError, match="no such invoice"):
                await transaction.invoices.get(*named)
        assert await transaction.invoices.list(text, InvoiceFilter((), (), 0, 0), None, 9) == []
        assert list(await transaction.invoices.credit_notes([text])) == []
        assert await transaction.invoices.oldest_due_us(text) == 0
        await transaction.invoices.forget_customer(text)
        await transaction.payments.put_payment_url(text, "https://elsewhere.example")
        for wanted in (
            AuditFilter(text, 0, 0, (), (), ""),
            AuditFilter("", 0, 0, (text,), (), ""),
            AuditFilter("", 0, 0, (), (), text),
        ):
            assert await transaction.audit.list(wanted, None, 9) == []
        assert (await transaction.entitlements.status(text)).revision == 0
        assert await transaction.rollups.provider_cost(text, 0) == (0, 0)
        assert await transaction.rollups.committed_since(text, 0) == 0
        assert await transaction.rollups.read(RollupFilter(text)) == []
        for wanted in (
            UsageQuery(text, 0, 1, Granularity.DAY),
            *(UsageQuery(VICTIM, 0, 1, Granularity.DAY, **{name: text}) for name in ("provider", "model")),
            UsageQuery(VICTIM, 0, 1, Granularity.DAY, (Dimension.LABEL,), "x", text),
            UsageQuery(VICTIM, 0, 1, Granularity.DAY, (Dimension.LABEL,), text, "x"),
        ):
            assert await transaction.rollups.rows(wanted, Span(0, DAY_US), None, 9) == []
            assert await transaction.rollups.totals(wanted, Span(0, DAY_US), 9) == Totals()
        assert (await transaction.ledger.counts(text, 1)).committed == 0
        assert await transaction.ledger.existing({LedgerKey(text, "ses_x", 1), LedgerKey(VICTIM, text, 1)}) == set()
        assert await transaction.ledger.strays(text, None, 9) == []
        await transaction.entitlements.mark_applied(text, 1, 1)
        await transaction.partitions.release(text)
        assert await transaction.requests.begin(text, text, text, text, 1) is None
        await transaction.requests.finish(text, text, text, text)

    for text in CORPUS:
        await database.transact(lambda t, x=text: attack(t, x))
    key = await database.transact(lambda t: t.api_keys.find(VICTIM, f"key_{VICTIM}"))
    assert key == api_key(VICTIM), "nothing of it was changed"
    assert (await database.transact(lambda t: t.accounts.get(VICTIM))).display_name == "x"
    assert await database.transact(lambda t: t.invoices.get(VICTIM, f"inv_{VICTIM}")) == invoice_of(VICTIM, "x")


async def test_text_of_every_kind_comes_back_as_it_was(database: Database) -> None:
    for number, text in enumerate(CORPUS):
        await database.transact(lambda t, n=number, x=text: fill(t, f"acct_{n}", x))
    found = {one.account_id: one for one in await database.transact(lambda t: t.accounts.list(EVERYBODY, None, 99))}
    keys = {LedgerKey(f"acct_{number}", f"ses_{text}", 1) for number, text in enumerate(CORPUS)}
    assert await database.transact(lambda t: t.ledger.existing(keys)) == keys
    for number, text in enumerate(CORPUS):
        account_id = f"acct_{number}"
        wanted = UsageQuery(account_id, 0, 1, Granularity.DAY, tuple(Dimension), text)
        (row,) = await database.transact(lambda t, x=wanted: t.rollups.rows(x, Span(0, DAY_US), None, 9))
        assert row.group == (text, text, 0, "x" if text != "x" else text)
        assert found[account_id] == account(account_id, text)
        stored = await database.transact(lambda t, a=account_id: t.api_keys.find(a, f"key_{a}"))
        assert stored == api_key(account_id, text)
        printed = await database.transact(lambda t, a=account_id: t.invoices.get(a, f"inv_{a}"))
        assert printed == invoice_of(account_id, text)
        wanted = AuditFilter(account_id, 0, 0, (), (), "")
        (event,) = await database.transact(lambda t, w=wanted: t.audit.list(w, None, 9))
        quoted = json.dumps(text, ensure_ascii=False)
        assert (event.reason, event.request_id, event.changes) == (text, text, (AuditChange(text, "", quoted),))


async def test_a_replica_of_that_name_shares_and_no_more(database: Database) -> None:
    for text in CORPUS:
        held = (await database.transact(lambda t, x=text: t.partitions.balance(x, 1, 10))).leases
        assert len(held) == 64
        await database.transact(lambda t, x=text: t.partitions.release(x))


async def test_a_character_that_postgresql_cannot_store_is_refused_there(database: Database) -> None:
    wanted = AccountFilter((), "", "\0")
    if not database.shared:
        assert await database.transact(lambda t: t.accounts.list(wanted, None, 9)) == []
        return
    with pytest.raises(FlowStackError, match=r"U\+0000") as raised:
        await database.transact(lambda t: t.accounts.list(wanted, None, 9))
    assert raised.value.reason is Reason.INVALID_REQUEST
