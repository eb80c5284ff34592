"""`flowstack alerts`: what was told, to whom, and when to tell."""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Annotated, Any

import typer
from flowstack_protos.billing.v1 import alert_service_pb2 as pb
from google.protobuf.field_mask_pb2 import FieldMask

from flowstack._methods import AlertService
from flowstack.cli.shell import Shell, shell_of
from flowstack.cli.values import hours, when, word

app = typer.Typer(help="Alerts: thresholds, webhooks, and what was sent.", no_args_is_help=True)
webhooks = typer.Typer(help="Where alerts are sent to.", no_args_is_help=True)
app.add_typer(webhooks, name="webhooks")

WebhookId = Annotated[str, typer.Argument(help="The webhook's id.")]


class Severity(StrEnum):
    """How bad it is."""

    info = "info"
    warning = "warning"
    critical = "critical"


class Format(StrEnum):
    """How a webhook's body is written."""

    standard = "standard"
    slack = "slack"


@app.command("list")
def list_(context: typer.Context, limit: Annotated[int, typer.Option(min=1, max=1000)] = 50) -> None:
    """The newest alerts first, and whether they arrived."""
    shell = shell_of(context)
    found = list(shell.pages(AlertService.ListAlerts, "alerts", limit))
    rows = [
        (when(one.create_time), word(one, "severity"), one.message, _deliveries(one), one.alert_id) for one in found
    ]
    columns = ("time", "severity", "message", "sent", "@alert")
    shell.output.table(columns, rows, {"alerts": found}, "There are no alerts.")


@app.command()
def watch(context: typer.Context) -> None:
    """Alerts as they come, until interrupted."""
    shell = shell_of(context)
    request = AlertService.WatchAlerts.request(account_id=shell.account_id)
    for answer in shell.client.stream(AlertService.WatchAlerts, request):
        if not answer.HasField("alert"):  # a sign of life
            continue
        one = answer.alert
        shell.output.say(f"{when(one.create_time)}  {word(one, 'severity')}  {one.message}", one)


@app.command()
def send(
    context: typer.Context,
    message: Annotated[str, typer.Argument(help="What to tell.")],
    severity: Severity = Severity.info,
) -> None:
    """Sends an alert of your own through the account's webhooks."""
    shell = shell_of(context)
    answer = shell.call(
        AlertService.SendAlert,
        safe=True,
        message=message,
        severity=pb.AlertSeverity.Value(f"ALERT_SEVERITY_{severity.name.upper()}"),
        request_id=f"cli-{secrets.token_hex(12)}",
    )
    count = len(answer.alert.deliveries)
    where = (
        f"on its way to {count} webhook{'s' if count != 1 else ''}"
        if count
        else "kept; there is no webhook to send it to"
    )
    shell.output.say(f"{answer.alert.alert_id} is {where}.", answer)


@app.command()
def settings(context: typer.Context) -> None:
    """The thresholds, and where alerts go."""
    shell = shell_of(context)
    found = shell.call(AlertService.GetAlertSettings).alert_settings
    _show_settings(shell, found)


@app.command()
def thresholds(
    context: typer.Context,
    percent: Annotated[
        list[int], typer.Argument(min=1, max=100, help="Percent of the limit, 1 to 100, such as: 75 90 95")
    ],
) -> None:
    """Sets at which usage an alert is sent."""
    shell = shell_of(context)
    answer = shell.call(
        AlertService.UpdateAlertSettings,
        alert_settings=pb.AlertSettings(thresholds=percent),
        update_mask=FieldMask(paths=["thresholds"]),
    )
    _show_settings(shell, answer.alert_settings)


@app.command("send-to")
def send_to(
    context: typer.Context,
    webhook: Annotated[list[str] | None, typer.Argument(help="The webhooks' ids; nobody where left out.")] = None,
) -> None:
    """Sets which webhooks alerts are sent to."""
    shell = shell_of(context)
    sinks = [pb.AlertSink(webhook_id=webhook_id) for webhook_id in webhook or []]
    answer = shell.call(
        AlertService.UpdateAlertSettings,
        alert_settings=pb.AlertSettings(sinks=sinks),
        update_mask=FieldMask(paths=["sinks"]),
    )
    _show_settings(shell, answer.alert_settings)


@app.command()
def redeliver(
    context: typer.Context,
    alert: Annotated[str, typer.Argument(help="The alert's id.")],
    webhook: Annotated[str, typer.Option(help="To this webhook alone.")] = "",
) -> None:
    """Sends an alert again."""
    shell = shell_of(context)
    answer = shell.call(AlertService.RedeliverAlert, alert_id=alert, webhook_id=webhook)
    shell.output.say(f"{answer.alert.alert_id} is on its way again.", answer)


@webhooks.command("list")
def list_webhooks(context: typer.Context) -> None:
    """The account's webhooks."""
    shell = shell_of(context)
    found = list(shell.pages(AlertService.ListWebhooks, "webhooks", 1000))
    rows = [
        (one.webhook_id, one.display_name, word(one, "format"), one.redacted_url, when(one.create_time))
        for one in found
    ]
    columns = ("@webhook", "name", "format", "address", "made")
    shell.output.table(columns, rows, {"webhooks": found}, "There are no webhooks.")


@webhooks.command()
def add(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="https://…")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    format_: Annotated[Format, typer.Option("--format", help="standard: Standard Webhooks, signed.")] = Format.standard,
) -> None:
    """Adds a webhook. Its signing secret is shown once."""
    shell = shell_of(context)
    answer = shell.call(
        AlertService.CreateWebhook,
        url=url,
        display_name=name,
        format=pb.WebhookFormat.Value(f"WEBHOOK_FORMAT_{format_.name.upper()}"),
    )
    _tell_secret(shell, answer)
    if not shell.output.as_json:
        shell.output.say(f"Alerts go there after `flowstack alerts send-to {answer.webhook.webhook_id}`.")


@webhooks.command()
def rotate(
    context: typer.Context,
    webhook: WebhookId,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=168, help="How long both secrets sign, up to 7 days.")
    ] = 24.0,
) -> None:
    """Gives a webhook a new signing secret."""
    shell = shell_of(context)
    answer = shell.call(AlertService.RotateWebhookSecret, webhook_id=webhook, overlap=hours(overlap_hours))
    _tell_secret(shell, answer)


@webhooks.command()
def delete(context: typer.Context, webhook: WebhookId) -> None:
    """Deletes a webhook; what was not delivered to it yet is not any more."""
    shell = shell_of(context)
    answer = shell.call(AlertService.DeleteWebhook, webhook_id=webhook)
    shell.output.say(f"{webhook} is deleted.", answer)


def _deliveries(alert: pb.Alert) -> str:
    return ", ".join(word(one, "state") for one in alert.deliveries) or "-"


def _show_settings(shell: Shell, found: pb.AlertSettings) -> None:
    sinks = [sink.webhook_id for sink in found.sinks]
    shell.output.fields(
        [
            ("Thresholds", ", ".join(f"{percent} %" for percent in found.thresholds) or "none"),
            ("Sent to", ", ".join(sinks) or "nobody; they are kept for `alerts list` and `alerts watch`"),
        ],
        found,
    )


def _tell_secret(shell: Shell, answer: Any) -> None:
    if shell.output.as_json:
        shell.output.json(answer)
    elif not answer.secret:
        shell.output.say(f"{answer.webhook.webhook_id} is ready.")
    else:
        shell.output.say(f"{answer.webhook.webhook_id} is ready. Its signing secret is shown this once; keep it safe:")
        shell.output.write(f"{answer.secret}\n")
