"""What sessions cost, by UsageService of the fake: on each plan and offer that fits, managed beside BYOK.

Current prices are those that the fake was given; the published comparison has its own, the price table `seed-example`.
"""

from __future__ import annotations

from typing import Final

from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2 as types

from flowstack.testing._calls import Call
from flowstack.testing._errors import FakeError
from flowstack.testing._models import resolved
from flowstack.testing._plans import OFFER, PLANS, micro_of, money
from flowstack.testing._prices import VERSION
from flowstack.testing._world import World

TOKENS_DEFAULT: Final = 7_500
"""Of a session."""
OUTPUT_SHARE: Final = 4
"""Outputs are one in so many tokens where nobody says."""

CURRENT: Final = "current"
SEED_EXAMPLE: Final = "seed-example"
_VOLUME_SESSIONS: Final = 10_000
"""From so many sessions a month the comparison speaks of any model, within a range."""
_VOLUME_USD: Final = (300, 800)
"""For _VOLUME_SESSIONS of TOKENS_DEFAULT."""
_MODELS_USD: Final = {"gpt-4": 750, "gpt-3.5": 150, "gpt-3.5-turbo": 150}
"""For as many, which is ten times what the comparison speaks of."""

_Range = tuple[int, int] | None
"""The lowest and the highest cost; None where it is not known."""


class Estimates:
    """The method of UsageService that is about no account."""

    def __init__(self, world: World) -> None:
        self._world = world

    def estimate_cost(self, _: Call, request: pb.EstimateCostRequest) -> pb.EstimateCostResponse:
        """The plans and offers that allow as many sessions, by total, those without a total last."""
        table = request.price_table or CURRENT
        if table not in (CURRENT, SEED_EXAMPLE):
            raise FakeError(
                "PRICE_TABLE_NOT_FOUND",
                f"There is no such price table. Leave price_table empty for current prices, or name {SEED_EXAMPLE}.",
            )
        tokens = request.tokens_per_session or TOKENS_DEFAULT
        has_output = request.HasField("output_tokens_per_session")
        outputs = request.output_tokens_per_session if has_output else tokens // OUTPUT_SHARE
        model = request.model
        if table == SEED_EXAMPLE:
            cost, version = _seed_cost(request, tokens), f"{SEED_EXAMPLE}-1"
        else:
            model, version = resolved(request.provider, request.model), VERSION
            rates, sessions = self._world.prices.of(request.provider, model), request.sessions_per_month
            micro = None if rates is None else rates.cost_micro(sessions * (tokens - outputs), sessions * outputs)
            cost = None if micro is None else (micro, micro)
        found = [
            _estimate(plan_id, offer_id, limit, fee_micro, mode, (0, 0) if mode == _MANAGED else cost)
            for plan_id, offer_id, limit, fee_micro, managed in _fees()
            if limit >= request.sessions_per_month
            for mode in ((_MANAGED, _BYOK) if managed else (_BYOK,))
        ]
        return pb.EstimateCostResponse(
            estimates=sorted(found, key=_order),
            tokens_per_session=tokens,
            output_tokens_per_session=outputs,
            price_table=table,
            served_model=model,
            price_table_version=version,
        )


_MANAGED: Final = types.CREDENTIAL_MODE_MANAGED
_BYOK: Final = types.CREDENTIAL_MODE_BYOK


def _fees() -> list[tuple[str, str, int, int, bool]]:
    plans = [plan for plan in PLANS.values() if plan.price_micro is not None]
    fees = [(plan.plan_id, "", plan.session_limit, plan.price, bool(plan.managed_providers)) for plan in plans]
    offer = (OFFER.plan_id, OFFER.offer_id, OFFER.session_limit, micro_of(OFFER.price), bool(OFFER.managed_providers))
    return [*fees, offer]


def _seed_cost(request: pb.EstimateCostRequest, tokens: int) -> _Range:
    if request.sessions_per_month >= _VOLUME_SESSIONS:
        low, high = _VOLUME_USD
    elif request.provider == "openai" and request.model in _MODELS_USD:
        low = high = _MODELS_USD[request.model]
    else:
        return None
    total, of = 1_000_000 * request.sessions_per_month * tokens, _VOLUME_SESSIONS * TOKENS_DEFAULT
    return (2 * total * low + of) // (2 * of), (2 * total * high + of) // (2 * of)


def _estimate(  # noqa: PLR0917  # an estimate's columns
    plan_id: str, offer_id: str, limit: int, fee_micro: int, mode: types.CredentialMode.ValueType, cost: _Range
) -> pb.CostEstimate:
    return pb.CostEstimate(
        plan_id=plan_id,
        offer_id=offer_id,
        session_limit=limit,
        credential_mode=mode,
        platform_fee=money(fee_micro),
        provider_cost=None if cost is None else money(cost[0]),
        provider_cost_high=None if cost is None else money(cost[1]),
        total=None if cost is None else money(fee_micro + cost[0]),
        total_high=None if cost is None else money(fee_micro + cost[1]),
    )


def _order(estimate: pb.CostEstimate) -> tuple[bool, int, int, str, int]:
    low = micro_of(estimate.total)
    has_none = not estimate.HasField("total")
    return (has_none, low, micro_of(estimate.platform_fee), estimate.offer_id, estimate.credential_mode)
