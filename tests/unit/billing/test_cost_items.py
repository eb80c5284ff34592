"""A period's costs by model: grouped, ordered and cut in the database, and nothing of it is lost beyond the limit."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import astuple

from services.billing.adapters.sql.database import Database
from services.billing.domain.ledger import LedgerEntry
from services.billing.domain.usage_query import CostItem, Totals
from tests.support.clock import HOUR_US, us

PERIOD_US = us(2026, 3, 10, 12) + HOUR_US // 2
"""It begins within an hour."""
MODELS = ("m", "M", "é", "z", "A", "m\x02", "")


def entry(number: int, model: str, seed: random.Random, **fields: object) -> LedgerEntry:
    mode, event = seed.choice([0, 1, 2]), seed.choice([1, 1, 1, 2, 3])
    reserve_us = PERIOD_US + seed.choice([0, 1, HOUR_US, 50 * HOUR_US])
    cost = seed.choice([None, 0, 5, 5, 700]) if mode == 2 else None
    made = LedgerEntry(
        "acct_a", f"ses_{number}", event, reserve_us, 2, PERIOD_US, reserve_us, reserve_us, reserve_us, mode,
        seed.choice("pP"), model, mode, 3, 4, None, None, None, False, 0, 0, "", "", "{}", "{}", 1, cost,
    )  # fmt: skip
    return made._replace(**fields)


def added_up(entries: Sequence[LedgerEntry]) -> Totals:
    counted = [one for one in entries if one.event == 1]
    modes = [sum(one.credential_mode == mode for one in counted) for mode in (1, 2)]
    events = [sum(one.event == event for one in entries) for event in (1, 2, 3)]
    costs = sum(one.provider_cost_micro or 0 for one in entries)
    unpriced = sum(one.credential_mode == 2 and one.provider_cost_micro is None for one in entries)
    sums = Totals().sums._replace(
        committed=events[0], released=events[1], expired=events[2],
        input_tokens=3 * len(entries), output_tokens=4 * len(entries), cost_micro=costs, unpriced=unpriced,
    )  # fmt: skip
    return Totals(modes[0], modes[1], sums)


async def test_the_dearest_come_first_and_the_others_in_one_sum(database: Database) -> None:
    seed = random.Random(4)
    mine = [entry(number, seed.choice(MODELS), seed) for number in range(300)]
    foreign = [
        entry(1000, "m", seed, account_id="acct_b"),
        entry(1001, "m", seed, period_start_us=PERIOD_US - 700 * HOUR_US, reserve_us=PERIOD_US - 1),
    ]
    await database.transact(lambda t: t.rollups.add([*mine, *foreign]))

    groups: dict[tuple[str, str, int], list[LedgerEntry]] = {}
    for one in mine:
        groups.setdefault((one.served_provider, one.served_model, one.served_credential_mode), []).append(one)
    expected = [CostItem(*key, added_up(entries)) for key, entries in groups.items()]
    expected.sort(key=lambda item: (-item.totals.sums.cost_micro, -item.totals.sums.committed, astuple(item)[:3]))
    assert len({item.totals.sums.cost_micro for item in expected}) < len(expected), "some cost the same"

    for limit in (0, 1, 7, len(expected) - 1, len(expected), 1_000):
        found = await database.transact(lambda t, n=limit: t.rollups.costs("acct_a", PERIOD_US, n))
        assert list(found.items) == expected[:limit]
        left = {(item.provider, item.model, item.credential_mode) for item in expected[limit:]}
        assert found.others == len(left)
        beyond = [one for key, entries in groups.items() if key in left for one in entries]
        assert found.others_totals == added_up(beyond)
    assert (await database.transact(lambda t: t.rollups.costs("acct_a", PERIOD_US + 1, 5))).items == []
