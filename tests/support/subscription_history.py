"""A subscription's life in the domain alone, with what was charged in it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from services.billing.adapters.catalogue_file import load_catalogue
from services.billing.domain.changes import Changed, cancel, change_plan, revert
from services.billing.domain.contracts import ContractWish, contract_of, put_contract
from services.billing.domain.model import Subscription
from services.billing.domain.renewal import Charge, advance, begin
from services.billing.domain.subscriptions import start_subscription
from services.shared.periods import period_at
from tests.support.clock import us

CATALOGUE = load_catalogue()
START_US = us(2026, 1, 31, 12)


def terms_of(plan_id: str, now_us: int = START_US) -> object:
    return CATALOGUE.newest(plan_id, now_us).terms()


def wish(**fields: object) -> ContractWish:
    unset = {
        "plan_id": "", "plan_version": 0, "offer_id": "", "effective_us": 0, "end_us": 0, "price_micro": None,
        "session_limit": None, "managed_providers": (), "max_concurrent_sessions": None, "max_output_tokens": None,
        "max_tool_rounds": None, "support_level": None, "features": (), "reference": "",
    }  # fmt: skip
    return ContractWish(**(unset | fields))  # type: ignore[arg-type]


@dataclass
class History:
    """A subscription's life: what was charged, and which subscriptions there were."""

    now_us: int
    subscription: Subscription
    charges: list[Charge] = field(default_factory=list)
    retired: list[Subscription] = field(default_factory=list)
    held: list[tuple[str, int, int]] = field(default_factory=list)
    """Subscription, moment and price in force, noted whenever anything happens."""
    seed: random.Random = field(default_factory=lambda: random.Random(7))

    @staticmethod
    def begin(plan_id: str, now_us: int = START_US) -> History:
        rng = random.Random(7)
        started = start_subscription("acct_1", terms_of(plan_id), now_us, rng.randbytes)  # type: ignore[arg-type]
        outcome = begin(started.subscription, started.change.change_id)
        return History(now_us, outcome.subscription, outcome.charges, seed=rng)

    def pass_to(self, now_us: int) -> None:
        assert now_us >= self.now_us
        self.now_us = now_us
        self.take(advance(self.subscription, now_us, self.seed.randbytes))

    def take(self, outcome) -> None:  # type: ignore[no-untyped-def]
        self.subscription = outcome.subscription
        self.charges += outcome.charges
        self.retired += outcome.retired

    def apply(self, changed: Changed) -> Changed:
        self.take(changed.outcome)
        return changed

    def change(self, plan_id: str) -> Changed:
        return self.apply(
            change_plan(self.subscription, terms_of(plan_id, self.now_us), self.now_us, self.seed.randbytes)
        )  # type: ignore[arg-type]

    def cancel(self) -> Changed:
        return self.apply(cancel(self.subscription, self.now_us, self.seed.randbytes))

    def revert(self) -> Changed:
        return self.apply(revert(self.subscription, self.now_us, self.seed.randbytes))

    def contract(self, **fields: object) -> Changed:
        contract = contract_of(wish(**fields), CATALOGUE, self.now_us, self.seed.randbytes)
        return self.apply(put_contract(self.subscription, contract, CATALOGUE, self.now_us, self.seed.randbytes))

    def charged(self) -> list[tuple[str, int]]:
        return [(charge.kind.name, charge.amount_micro // 1_000_000) for charge in self.charges if charge.amount_micro]


def period_start(history: History, months: int) -> int:
    period = period_at(history.subscription.anchor_us, history.subscription.anchor_us)
    for _ in range(months):
        period = period_at(history.subscription.anchor_us, period.end_us)
    return period.start_us
