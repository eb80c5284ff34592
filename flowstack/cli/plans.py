"""`flowstack plans`: what can be bought."""

from __future__ import annotations

import typer

from flowstack._methods import SubscriptionService
from flowstack.cli.shell import shell_of
from flowstack.cli.values import dollars, limit_of, word


def plans(context: typer.Context) -> None:
    """Every plan and public offer, with its price and sessions a month."""
    shell = shell_of(context)
    answer = shell.client.call(SubscriptionService.ListPlans, SubscriptionService.ListPlans.request(page_size=1000))
    rows = [
        (
            plan.plan_id,
            "on request" if plan.contact_sales else dollars(plan.price),
            limit_of(plan.session_limit) + ("+" if plan.contact_sales else ""),
            ", ".join(plan.managed_providers) or "own keys only",
            str(plan.max_concurrent_sessions) if plan.HasField("max_concurrent_sessions") else "by contract",
            word(plan, "support_level"),
        )
        for plan in answer.plans
    ]
    rows += [
        (
            f"{offer.offer_id} (offer)",
            dollars(offer.price),
            limit_of(offer.session_limit),
            ", ".join(offer.managed_providers) or "own keys only",
            str(offer.max_concurrent_sessions),
            word(offer, "support_level"),
        )
        for offer in answer.offers
    ]
    shell.output.table(
        ("@plan", "#a month", "#sessions", "managed", "#at once", "support"), rows, answer, "There are no plans."
    )
