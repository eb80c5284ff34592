"""What a subscription has: a plan's terms, with a contract's on top."""

from __future__ import annotations

from dataclasses import dataclass

from flowstack_protos.billing.v1 import plan_pb2
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb

from flowstack.testing._plans import FREE, PLANS, Plan, money


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a month. Money is micro-dollars."""

    plan_id: str
    contract_id: str
    """Empty for the plan's own terms."""
    price_micro: int
    session_limit: int
    managed_providers: tuple[str, ...]
    max_concurrent_sessions: int
    max_output_tokens: int
    max_tool_rounds: int
    support_level: plan_pb2.SupportLevel.ValueType
    features: tuple[str, ...]

    @property
    def name(self) -> str:
        """What they are called on an invoice."""
        name = PLANS[self.plan_id].display_name
        return f"{name} (contract)" if self.contract_id else name

    @property
    def upgrade_plan_id(self) -> str:
        """The plan to move to; empty for none."""
        return PLANS[self.plan_id].upgrade_plan_id

    @property
    def are_free(self) -> bool:
        """Whether a first paid plan replaces them by a new subscription."""
        return self.plan_id == FREE and not self.price_micro

    def to_proto(self) -> pb.SubscriptionTerms:
        """The terms on the wire."""
        return pb.SubscriptionTerms(
            plan_id=self.plan_id,
            plan_version=1,
            contract_id=self.contract_id,
            price=money(self.price_micro),
            session_limit=self.session_limit,
            managed_providers=self.managed_providers,
            max_concurrent_sessions=self.max_concurrent_sessions,
            max_output_tokens=self.max_output_tokens,
            max_tool_rounds=self.max_tool_rounds,
            support_level=self.support_level,
            features=self.features,
        )


def terms_of(plan: Plan) -> Terms:
    """The terms of a plan that is sold without a contract."""
    return Terms(
        plan.plan_id,
        "",
        plan.price,
        plan.session_limit,
        plan.managed_providers,
        plan.max_concurrent_sessions or 0,
        plan.max_output_tokens,
        plan.max_tool_rounds,
        plan.support_level,
        plan.features,
    )
