"""The plans that the fake sells: those of the catalogue that FlowStack ships with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flowstack_protos.billing.v1 import plan_pb2
from google.type.money_pb2 import Money

from flowstack.testing._errors import FakeError
from flowstack.testing._time import timestamp

FREE: Final = "free"

_SOLD_SINCE_US: Final = 1_704_067_200_000_000
"""2024-01-01T00:00:00Z."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan. Money is micro-dollars."""

    plan_id: str
    display_name: str
    description: str
    price_micro: int | None
    """None where it is sold by contract."""
    session_limit: int
    max_concurrent_sessions: int | None
    max_output_tokens: int
    support_level: plan_pb2.SupportLevel.ValueType
    features: tuple[str, ...] = ()
    managed_providers: tuple[str, ...] = ("bedrock",)
    upgrade_plan_id: str = ""
    max_tool_rounds: int = 25

    @property
    def price(self) -> int:
        """The fee of a month; 0 where a contract sets it."""
        return self.price_micro or 0


_ADVANCED: Final = ("optimized_ai_pricing", "advanced_analytics")

PLANS: Final = {
    plan.plan_id: plan
    for plan in (
        Plan(
            "free",
            "Free",
            "25 sessions a month on your own provider credentials.",
            0,
            25,
            25,
            4_096,
            plan_pb2.SUPPORT_LEVEL_COMMUNITY,
            managed_providers=(),
            upgrade_plan_id="hobbyist",
        ),
        Plan(
            "hobbyist",
            "Hobbyist",
            "200 sessions a month, managed Bedrock included, your own credentials where you like.",
            15_000_000,
            200,
            50,
            8_192,
            plan_pb2.SUPPORT_LEVEL_EMAIL,
            upgrade_plan_id="starter",
        ),
        Plan(
            "starter",
            "Starter",
            "1,000 sessions a month, managed Bedrock included, your own credentials where you like.",
            50_000_000,
            1_000,
            100,
            16_384,
            plan_pb2.SUPPORT_LEVEL_EMAIL,
            upgrade_plan_id="professional",
        ),
        Plan(
            "professional",
            "Professional",
            "5,000 sessions a month, optimized AI pricing, advanced analytics, priority support.",
            200_000_000,
            5_000,
            500,
            32_768,
            plan_pb2.SUPPORT_LEVEL_PRIORITY,
            _ADVANCED,
            upgrade_plan_id="enterprise",
        ),
        Plan(
            "enterprise",
            "Enterprise",
            "25,000 sessions a month or more, volume pricing, custom infrastructure, dedicated support.",
            None,
            25_000,
            None,
            65_536,
            plan_pb2.SUPPORT_LEVEL_DEDICATED,
            (*_ADVANCED, "volume_pricing", "custom_infrastructure"),
        ),
    )
}

OFFER: Final = plan_pb2.Offer(
    offer_id="volume-10k",
    display_name="Volume 10k",
    description="10,000 sessions a month for applications of high volume, managed Bedrock included.",
    plan_id="professional",
    plan_version=1,
    price=Money(currency_code="USD", units=99),
    session_limit=10_000,
    managed_providers=["bedrock"],
    max_concurrent_sessions=500,
    max_output_tokens=32_768,
    max_tool_rounds=25,
    support_level=plan_pb2.SUPPORT_LEVEL_PRIORITY,
    features=[*_ADVANCED, "volume_pricing"],
)


def plan_of(plan_id: str, version: int = 0) -> Plan:
    """A plan of the catalogue, which has one version of each.

    Raises:
        FakeError: PLAN_NOT_FOUND.
    """
    plan = PLANS.get(plan_id)
    if plan is None or version > 1:
        raise FakeError(
            "PLAN_NOT_FOUND", "The catalogue has no such plan on sale. ListPlans shows those that there are."
        )
    return plan


def plan_for_sale(plan_id: str, version: int = 0) -> Plan:
    """A plan that an account may choose.

    Raises:
        FakeError: PLAN_NOT_FOUND; CONTRACT_REQUIRED for one that is sold by contract.
    """
    plan = plan_of(plan_id, version)
    if plan.price_micro is None:
        raise FakeError(
            "CONTRACT_REQUIRED",
            f"The plan {plan_id} is sold by contract. Ask the operator for one, or choose another plan.",
            metadata={"plan": plan_id},
        )
    return plan


def money(micro: int) -> Money:
    """Micro-dollars on the wire."""
    sign = -1 if micro < 0 else 1
    units, rest = divmod(abs(micro), 1_000_000)
    return Money(currency_code="USD", units=sign * units, nanos=sign * rest * 1000)


def micro_of(amount: Money) -> int:
    """Micro-dollars of money on the wire."""
    return int(amount.units * 1_000_000 + amount.nanos // 1000)


def plan_to_proto(plan: Plan) -> plan_pb2.Plan:
    """The plan on the wire."""
    required = not plan.managed_providers
    return plan_pb2.Plan(
        plan_id=plan.plan_id,
        version=1,
        display_name=plan.display_name,
        description=plan.description,
        price=None if plan.price_micro is None else money(plan.price_micro),
        session_limit=plan.session_limit,
        managed_providers=plan.managed_providers,
        byok_requirement=plan_pb2.BYOK_REQUIREMENT_REQUIRED if required else plan_pb2.BYOK_REQUIREMENT_OPTIONAL,
        max_concurrent_sessions=plan.max_concurrent_sessions,
        max_output_tokens=plan.max_output_tokens,
        max_tool_rounds=plan.max_tool_rounds,
        support_level=plan.support_level,
        features=plan.features,
        contact_sales=plan.price_micro is None,
        effective_time=timestamp(_SOLD_SINCE_US),
    )
