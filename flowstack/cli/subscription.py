"""`flowstack subscription`: the plan that the account has, and its changes."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import typer
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb

from flowstack._methods import SubscriptionService
from flowstack.cli.shell import Shell, shell_of
from flowstack.cli.values import date_of, dollars, limit_of, time_of, when, word

app = typer.Typer(help="The account's plan, and its changes.", no_args_is_help=True)

Preview = Annotated[bool, typer.Option("--preview", help="Says what would happen, and changes nothing.")]


@app.command()
def show(context: typer.Context) -> None:
    """The subscription, its period and what changed so far."""
    shell = shell_of(context)
    answer = shell.call(SubscriptionService.GetSubscription, page_size=20)
    now = answer.subscription
    shell.output.fields(_described(now), answer)
    if shell.output.as_json or not answer.changes:
        return
    shell.output.print()
    rows = [
        (when(one.request_time), word(one, "kind"), one.to_terms.plan_id, word(one, "state"), dollars(one.amount))
        for one in answer.changes
    ]
    shell.output.table(("asked for", "change", "@plan", "state", "#charged"), rows, None, "")


@app.command()
def change(
    context: typer.Context,
    plan: Annotated[str, typer.Argument(help="The plan to go to; `flowstack plans` lists them.")],
    preview: Preview = False,
) -> None:
    """Goes to another plan: upgrades at once, downgrades with the next period."""
    shell = shell_of(context)
    answer = shell.call(
        SubscriptionService.ChangePlan, safe=True, plan_id=plan, request_id=_request_id(), validate_only=preview
    )
    _report(shell, answer)


@app.command()
def cancel(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Why, for the records.")] = "",
    preview: Preview = False,
) -> None:
    """Ends the subscription with its period; service goes on until then."""
    shell = shell_of(context)
    answer = shell.call(
        SubscriptionService.CancelSubscription,
        safe=True,
        reason=reason,
        request_id=_request_id(),
        validate_only=preview,
    )
    _report(shell, answer)


@app.command()
def revert(context: typer.Context, preview: Preview = False) -> None:
    """Takes back a downgrade or cancellation that has not come yet."""
    shell = shell_of(context)
    answer = shell.call(
        SubscriptionService.RevertPendingChange, safe=True, request_id=_request_id(), validate_only=preview
    )
    _report(shell, answer)


def _request_id() -> str:
    return f"cli-{secrets.token_hex(12)}"


def _described(now: pb.Subscription) -> list[tuple[str, str]]:
    pending = ""
    if now.HasField("pending_change"):
        coming = now.pending_change
        pending = f"{word(coming, 'kind')} to {coming.to_terms.plan_id or 'none'} on {date_of(coming.effective_time)}"
    return [
        ("Plan", f"{now.plan_id}, version {now.plan_version}"),
        ("State", word(now, "state") + (", payment overdue" if now.payment_overdue else "")),
        ("Price", f"{dollars(now.terms.price)} a month"),
        ("Sessions", f"{limit_of(now.terms.session_limit)} a month, {now.terms.max_concurrent_sessions} at once"),
        ("Managed", ", ".join(now.terms.managed_providers) or "own keys only"),
        ("Period", f"{when(now.period_start_time)} to {when(now.period_end_time)}"),
        ("To come", pending),
        ("Ends", time_of(now, "end_time")),
    ]


def _report(shell: Shell, answer: Any) -> None:
    made = answer.change
    is_preview = made.state == pb.CHANGE_STATE_PREVIEW
    pairs = [
        ("Change", word(made, "kind") + (", a preview: nothing was changed" if is_preview else "")),
        ("From", made.from_terms.plan_id),
        ("To", made.to_terms.plan_id),
        ("Takes effect", time_of(made, "effective_time")),
        ("Charged", dollars(made.amount) if made.amount.units or made.amount.nanos else ""),
        ("Invoice", answer.invoice.number if "invoice" in answer.DESCRIPTOR.fields_by_name else ""),
    ]
    if not is_preview:
        applied = "yes" if answer.entitlement_applied else "on its way; new sessions follow within seconds"
        pairs.append(("In force at quota", applied))
    shell.output.fields(pairs, answer)
