"""`flowstack budget`: the most that a month may cost."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from flowstack_protos.billing.v1 import alert_service_pb2, budget_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from flowstack._methods import AlertService, UsageService
from flowstack.cli.shell import shell_of
from flowstack.cli.values import dollars, money_from, optional_dollars, time_of, word

app = typer.Typer(help="The most that a month may cost.", no_args_is_help=True)


class Action(StrEnum):
    """What happens beyond the budget."""

    warn = "warn"
    block = "block"


@app.command()
def show(context: typer.Context) -> None:
    """The budget and what is left of it."""
    shell = shell_of(context)
    usage = shell.call(UsageService.GetUsage).usage
    if not usage.HasField("budget"):
        shell.output.say("There is no budget. `flowstack budget set 100` makes one.", {"budget": None})
        return
    status = usage.budget
    pairs = [
        ("Budget", f"{dollars(status.budget.max_monthly_cost)} a month"),
        ("Beyond it", word(status.budget, "action")),
        ("Spent", optional_dollars(status, "spent")),
        ("Left", optional_dollars(status, "remaining")),
        ("Exceeded", time_of(status, "exceed_time")),
        ("Blocking", "yes: new sessions are refused until the period ends" if status.blocking else ""),
        ("Not priced", f"{status.unpriced_sessions} sessions" if status.unpriced_sessions else ""),
    ]
    shell.output.fields(pairs, status)


@app.command("set")
def set_(
    context: typer.Context,
    amount: Annotated[str, typer.Argument(help="Dollars a month, such as 100 or 49.50.")],
    action: Annotated[Action, typer.Option(help="block refuses new sessions; warn only tells.")] = Action.warn,
) -> None:
    """Sets the budget."""
    shell = shell_of(context)
    budget = budget_pb2.Budget(
        max_monthly_cost=money_from(amount),
        action=budget_pb2.BUDGET_ACTION_BLOCK if action is Action.block else budget_pb2.BUDGET_ACTION_WARN,
    )
    answer = shell.call(
        AlertService.UpdateAlertSettings,
        alert_settings=alert_service_pb2.AlertSettings(budget=budget),
        update_mask=FieldMask(paths=["budget"]),
    )
    set_to = answer.alert_settings.budget
    shell.output.say(f"The budget is {dollars(set_to.max_monthly_cost)} a month, to {action.value}.", answer)


@app.command()
def clear(context: typer.Context) -> None:
    """Takes the budget away."""
    shell = shell_of(context)
    answer = shell.call(
        AlertService.UpdateAlertSettings,
        alert_settings=alert_service_pb2.AlertSettings(),
        update_mask=FieldMask(paths=["budget"]),
    )
    shell.output.say("There is no budget any more.", answer)
