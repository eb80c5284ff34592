"""The catalogue: versioned plans, and public offers on top of them. Data; see catalogue.toml."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from services.billing.domain.model import SupportLevel, Terms
from services.shared.errors import FlowStackError, Reason

FREE: Final = "free"
"""The plan of an account that names none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of a plan. A changed plan is a new version: a subscription keeps the one that it was sold."""

    plan_id: str
    version: int
    display_name: str
    description: str
    price_micro: int | None
    """The fee for one month in micro-dollars; None where a contract sets it."""
    session_limit: int
    """Sessions in each period; the minimum where a contract sets it."""
    managed_providers: tuple[str, ...]
    byok_required: bool
    max_concurrent_sessions: int | None
    """None where a contract sets it."""
    max_output_tokens: int
    max_tool_rounds: int
    support_level: SupportLevel
    features: tuple[str, ...]
    contact_sales: bool
    """Sold by contract only."""
    upgrade_plan_id: str
    """The next plan up; empty for none."""
    effective_us: int
    retire_us: int

    def is_sold_at(self, now_us: int) -> bool:
        """Whether new subscriptions can get this version at `now_us`."""
        return self.effective_us <= now_us and (not self.retire_us or now_us < self.retire_us)

    def terms(self) -> Terms:
        """What a subscription without a contract gets.

        Raises:
            FlowStackError: CONTRACT_REQUIRED.
        """
        if self.contact_sales or self.price_micro is None or self.max_concurrent_sessions is None:
            raise FlowStackError(
                Reason.CONTRACT_REQUIRED,
                f"The plan {self.plan_id} is sold by contract. Ask the operator for one, or choose another plan.",
                metadata={"plan": self.plan_id},
            )
        return Terms(
            self.plan_id,
            self.version,
            "",
            self.price_micro,
            self.session_limit,
            self.managed_providers,
            self.max_concurrent_sessions,
            self.max_output_tokens,
            self.max_tool_rounds,
            self.support_level,
            self.features,
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """The terms of a contract that anybody may ask for."""

    offer_id: str
    display_name: str
    description: str
    plan_id: str
    plan_version: int
    price_micro: int
    session_limit: int
    managed_providers: tuple[str, ...]
    max_concurrent_sessions: int
    max_output_tokens: int
    max_tool_rounds: int
    support_level: SupportLevel
    features: tuple[str, ...]


class Catalogue:
    """Every plan version that was ever sold, and the offers."""

    def __init__(self, plans: Sequence[Plan], offers: Sequence[Offer]) -> None:
        """Takes the plans and offers.

        Raises:
            ValueError: they contradict one another; the message says how.
        """
        self._plans = {(plan.plan_id, plan.version): plan for plan in plans}
        self.offers = tuple(sorted(offers, key=lambda offer: (offer.price_micro, offer.offer_id)))
        problems = list(self._problems(plans))
        if problems:
            raise ValueError("; ".join(problems))

    def _problems(self, plans: Sequence[Plan]) -> Iterator[str]:
        ids = {plan.plan_id for plan in plans}
        if FREE not in ids:
            yield f"there is no plan {FREE}"
        if len(self._plans) < len(plans):
            yield "a plan has the same version twice"
        for plan_id in sorted(ids):
            versions = {plan.version for plan in plans if plan.plan_id == plan_id}
            if versions != set(range(1, len(versions) + 1)):
                yield f"the versions of {plan_id} do not count up from 1"
        for plan in plans:
            yield from _problems_of(plan, ids - {plan.plan_id})
        for offer in self.offers:
            if not self.has(offer.plan_id, offer.plan_version):
                yield f"the offer {offer.offer_id} builds on {offer.plan_id} version {offer.plan_version}, unknown here"

    def plan(self, plan_id: str, version: int) -> Plan:
        """A version of a plan, sold still or no more.

        Raises:
            FlowStackError: PLAN_NOT_FOUND.
        """
        plan = self._plans.get((plan_id, version))
        if plan is None:
            raise plan_not_found()
        return plan

    def has(self, plan_id: str, version: int) -> bool:
        """Whether there is such a version."""
        return (plan_id, version) in self._plans

    def newest(self, plan_id: str, now_us: int) -> Plan:
        """The newest version of a plan that is sold at `now_us`.

        Raises:
            FlowStackError: PLAN_NOT_FOUND.
        """
        sold = [plan for plan in self._plans.values() if plan.plan_id == plan_id and plan.is_sold_at(now_us)]
        if not sold:
            raise plan_not_found()
        return max(sold, key=lambda plan: plan.version)

    def plans_at(self, now_us: int, *, include_retired: bool) -> list[Plan]:
        """The plans, cheapest first, those without a price last.

        Of each plan the newest version on sale at `now_us`, or, with `include_retired`, every version that is or was
        on sale, the newest first.
        """
        begun = [plan for plan in self._plans.values() if plan.effective_us <= now_us]
        if not include_retired:
            sold = {plan.plan_id for plan in begun if plan.is_sold_at(now_us)}
            begun = [self.newest(plan_id, now_us) for plan_id in sold]
        return sorted(begun, key=_by_price)


def _problems_of(plan: Plan, others: set[str]) -> Iterator[str]:
    if plan.upgrade_plan_id and plan.upgrade_plan_id not in others:
        yield f"{plan.plan_id} names {plan.upgrade_plan_id} as its upgrade, which is no other plan"
    if not plan.contact_sales and (plan.price_micro is None or plan.max_concurrent_sessions is None):
        yield f"{plan.plan_id} is not sold by contract and lacks its price or its concurrent sessions"
    if plan.byok_required and plan.managed_providers:
        yield f"{plan.plan_id} demands credentials for every provider and includes some"


def _by_price(plan: Plan) -> tuple[bool, int, str, int]:
    return (plan.price_micro is None, plan.price_micro or 0, plan.plan_id, -plan.version)


def plan_not_found() -> FlowStackError:
    """PLAN_NOT_FOUND."""
    return FlowStackError(
        Reason.PLAN_NOT_FOUND, "The catalogue has no such plan on sale. ListPlans shows those that there are."
    )
