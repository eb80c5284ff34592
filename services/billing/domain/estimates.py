"""What a number of sessions a month costs, on each plan and offer that fits, managed beside BYOK."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.billing.domain.catalogue import Catalogue
from services.billing.domain.ledger import CredentialMode
from services.billing.domain.prices import Rates, Tokens, cost_micro

TOKENS_DEFAULT: Final = 7_500
"""Tokens of a session, as the published comparison assumes them."""

OUTPUT_SHARE: Final = 4
"""Outputs are one in so many tokens where nobody says."""

SEED_EXAMPLE: Final = "seed-example"
"""The price table of the published comparison. Its prices are an example, and never were anybody's."""

SEED_EXAMPLE_VERSION: Final = "seed-example-1"

_SEED_VOLUME_SESSIONS: Final = 10_000
"""From so many sessions a month the comparison speaks of any model, within a range."""


class _SeedPrice(NamedTuple):
    """As the comparison has it: dollars for what all sessions take, which for one token is no decimal fraction."""

    low_usd: int
    high_usd: int
    tokens: int

    def cost(self, tokens: int) -> CostRange:
        """For so many tokens, whatever of them is output, in micro-dollars, rounded half up."""
        return CostRange(*((2 * usd * 1_000_000 * tokens + self.tokens) // (2 * self.tokens) for usd in self[:2]))


_SEED_VOLUME_PRICE: Final = _SeedPrice(300, 800, 10_000 * TOKENS_DEFAULT)

_SEED_PRICES: Final = {
    "gpt-4": _SeedPrice(75, 75, 1_000 * TOKENS_DEFAULT),
    "gpt-3.5": _SeedPrice(15, 15, 1_000 * TOKENS_DEFAULT),
    "gpt-3.5-turbo": _SeedPrice(15, 15, 1_000 * TOKENS_DEFAULT),
}
"""OpenAI's."""


class CostRange(NamedTuple):
    """A cost at the lowest and the highest price; None where the price is not known."""

    low_micro: int | None
    high_micro: int | None


@dataclass(frozen=True, slots=True)
class Workload:
    """What is estimated."""

    sessions: int
    provider: str
    model: str
    tokens: int
    """Of a session, prompts and outputs together."""
    output_tokens: int
    """Of these."""

    @property
    def input_tokens(self) -> int:
        """Of a session."""
        return self.tokens - self.output_tokens


class Estimate(NamedTuple):
    """What the sessions cost on one plan or offer. Money is micro-dollars for a month."""

    plan_id: str
    offer_id: str
    session_limit: int
    credential_mode: CredentialMode
    fee_micro: int
    provider_cost: CostRange

    @property
    def total(self) -> CostRange:
        """Fee and provider cost."""
        return CostRange(*(None if micro is None else self.fee_micro + micro for micro in self.provider_cost))


def seed_example_cost(workload: Workload) -> CostRange:
    """What providers charge, by the price table of the published comparison."""
    price = _SEED_PRICES.get(workload.model) if workload.provider == "openai" else None
    if workload.sessions >= _SEED_VOLUME_SESSIONS:
        price = _SEED_VOLUME_PRICE
    return CostRange(None, None) if price is None else price.cost(workload.sessions * workload.tokens)


def current_cost(workload: Workload, rates: Rates | None) -> CostRange:
    """What providers charge at one price; None where it is not known."""
    if rates is None:
        return CostRange(None, None)
    sessions = workload.sessions
    cost = cost_micro(rates, Tokens(sessions * workload.input_tokens, sessions * workload.output_tokens))
    return CostRange(cost, cost)


def estimates(catalogue: Catalogue, now_us: int, sessions: int, provider_cost: CostRange) -> list[Estimate]:
    """The plans and offers that allow so many sessions and have a price, by total, those without a total last."""
    included = CostRange(0, 0)
    found = [
        Estimate(plan_id, offer_id, limit, mode, fee, included if mode is CredentialMode.MANAGED else provider_cost)
        for plan_id, offer_id, limit, fee, managed in _fees(catalogue, now_us)
        if limit >= sessions
        for mode in ((CredentialMode.MANAGED, CredentialMode.BYOK) if managed else (CredentialMode.BYOK,))
    ]
    return sorted(found, key=_order)


def _fees(catalogue: Catalogue, now_us: int) -> Iterator[tuple[str, str, int, int, bool]]:
    for plan in catalogue.plans_at(now_us, include_retired=False):
        if plan.price_micro is not None and not plan.contact_sales:
            yield plan.plan_id, "", plan.session_limit, plan.price_micro, bool(plan.managed_providers)
    for offer in catalogue.offers:
        yield offer.plan_id, offer.offer_id, offer.session_limit, offer.price_micro, bool(offer.managed_providers)


def _order(estimate: Estimate) -> tuple[bool, int, int, str, int]:
    low = estimate.total.low_micro
    return (low is None, low or 0, estimate.fee_micro, estimate.offer_id, estimate.credential_mode)
