"""The ledger's sums, computed from its rows in the plainest way, and what is stored of them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any, Final

from sqlalchemy import select

from services.billing.adapters.sql.database import Database
from services.billing.adapters.sql.tables import LEDGER
from services.billing.adapters.sql.usage_tables import USAGE_HOURS, USAGE_LABELS, USAGE_PERIODS
from services.billing.domain.prices import ModelPrice, Rates

HOUR_US: Final = 3_600_000_000
TOKENS: Final = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
Found = dict[str, dict[tuple[Any, ...], dict[str, int]]]
"""By table and key: the sums that are not 0."""


class OnePrice:
    """A table that knows one model."""

    version = "of-the-test"
    price_us = 0

    def price_of(self, provider: str, model: str, at_us: int) -> ModelPrice | None:
        """A dollar for a million tokens in, two for a million out."""
        return ModelPrice(self.version, Rates(1_000_000, 2_000_000)) if (provider, model) == ("p", "m") else None


async def sums_of_ledger(database: Database) -> Found:
    """Every sum, from the rows."""
    found: Found = {"usage_periods": {}, "usage_hours": {}, "usage_labels": {}}
    sums: dict[str, dict[tuple[Any, ...], Counter[str]]] = {name: defaultdict(Counter) for name in found}
    async with database.engine.connect() as connection:
        rows = (await connection.execute(select(LEDGER))).all()
    for row in rows:
        served = (row.served_provider, row.served_model, row.served_credential_mode, row.credential_mode)
        hour = (row.account_id, row.reserve_us // HOUR_US * HOUR_US, row.period_start_us, *served)
        one = _of_row(row)
        sums["usage_periods"][row.account_id, row.period_start_us, row.credential_mode].update(one)
        sums["usage_hours"][hour].update(one)
        labels = {_storable(key): _storable(value) for key, value in json.loads(row.labels).items()}
        for key, value in labels.items():
            account_id, hour_us, *served_in = hour
            sums["usage_labels"][account_id, key, hour_us, value, *served_in].update(one)
    return {name: {key: dict(value) for key, value in table.items()} for name, table in sums.items()}


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd")


def _of_row(row: Any) -> Counter[str]:
    one = Counter({{1: "committed", 2: "released", 3: "expired"}[row.event]: 1})
    if None in (row.input_tokens, row.output_tokens):
        one["without_tokens"] = 1
    else:
        one.update({name: getattr(row, name) for name in TOKENS if getattr(row, name)})
    if row.provider_cost_micro:
        one["cost_micro"] = row.provider_cost_micro
    if row.credential_mode == 2 and row.provider_cost_micro is None:
        one["unpriced"] = 1
    return one


async def sums_stored(database: Database) -> Found:
    """Every sum, as it is stored."""
    found: Found = {}
    async with database.engine.connect() as connection:
        for table in (USAGE_PERIODS, USAGE_HOURS, USAGE_LABELS):
            keys = [column.name for column in table.primary_key]
            rows = (await connection.execute(select(table))).mappings().all()
            found[table.name] = {
                tuple(row[key] for key in keys): {name: row[name] for name in row if name not in keys and row[name]}
                for row in rows
            }
    return found
