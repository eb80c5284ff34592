"""`flowstack usage`: where the account stands, and where the period will end."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer
from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flowstack._errors import ConfigurationError
from flowstack._methods import UsageService
from flowstack.cli.shell import Shell, shell_of
from flowstack.cli.values import date_of, dollars, limit_of, optional_dollars, when

BAR_WIDTH = 40


def usage(
    context: typer.Context,
    chart: Annotated[Path | None, typer.Option(help="Draws the period as SVG into this file.")] = None,
    advice: Annotated[bool, typer.Option("--advice", help="What would cost less, and why.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Goes on with each change, until interrupted.")] = False,
) -> None:
    """Sessions and money of this period, and the forecast of its end."""
    shell = shell_of(context)
    if watch:
        _watch(shell)
        return
    now = shell.call(UsageService.GetUsage).usage
    forecast = shell.call(UsageService.GetForecast).forecast
    analysis = shell.call(UsageService.AnalyzeCosts).cost_analysis if advice else None
    if chart is not None:
        _draw(chart, forecast)
    if shell.output.as_json:
        shell.output.json({"usage": now, "forecast": forecast} | ({"cost_analysis": analysis} if analysis else {}))
        return
    _show(shell, now, forecast)
    if analysis is not None:
        _show_advice(shell, analysis)
    if chart is not None:
        shell.output.say(f"The chart is in {chart}.")


def _watch(shell: Shell) -> None:
    request = UsageService.WatchUsage.request(account_id=shell.account_id)
    for answer in shell.client.stream(UsageService.WatchUsage, request):
        now = answer.usage
        line = (
            f"{now.sessions_used:,} of {now.sessions_limit:,} sessions used ({now.usage_percentage:.1f} %), "
            f"{now.sessions_reserved:,} running, {now.sessions_remaining:,} left"
        )
        shell.output.say(line, now)


def _show(shell: Shell, now: pb.Usage, forecast: pb.Forecast) -> None:
    used = f"{limit_of(now.sessions_used)} of {limit_of(now.sessions_limit)} sessions used"
    grid = Table.grid(padding=(0, 2))
    color = "red" if not now.can_make_requests else "yellow" if now.is_near_limit else "green"
    bar = ProgressBar(
        total=max(1, now.sessions_limit),
        completed=now.sessions_used,
        width=BAR_WIDTH,
        complete_style=color,
        finished_style=color,
    )
    grid.add_row(bar, Text(f"{now.usage_percentage:.1f} %", style=color), Text(used))
    shell.output.print(grid)
    begun = date_of(now.period_start_time)
    shell.output.fields(
        [
            ("Plan", now.plan_id),
            ("Period", f"{begun} to {date_of(now.period_end_time)}, {_counted(now.days_left, 'day')} left"),
            ("Today", _counted(now.sessions_used_today, "session")),
            ("Running", limit_of(now.sessions_reserved) if now.sessions_reserved else ""),
            ("Left", _counted(now.sessions_remaining, "session")),
            ("Managed, own keys", f"{limit_of(now.managed_sessions)}, {limit_of(now.byok_sessions)}"),
            ("New sessions", "" if now.can_make_requests else f"are refused: {now.refusal_reason}"),
            ("Charged so far", dollars(now.current_charges)),
            ("Estimated this month", optional_dollars(now, "estimated_monthly_cost")),
            ("Budget", _budget(now)),
            ("Forecast", _forecast(forecast)),
            ("Limit reached", when(forecast.limit_reach_time) if forecast.HasField("limit_reach_time") else ""),
        ],
        None,
    )


def _counted(number: int, noun: str) -> str:
    return f"{limit_of(number)} {noun}" if number == 1 else f"{limit_of(number)} {noun}s"


def _budget(now: pb.Usage) -> str:
    if not now.HasField("budget"):
        return ""
    status = now.budget
    state = ", blocking" if status.blocking else ", exceeded" if status.exceeded else ""
    return f"{optional_dollars(status, 'spent')} of {dollars(status.budget.max_monthly_cost)}{state}"


def _forecast(forecast: pb.Forecast) -> str:
    low, high = forecast.projected_sessions_low, forecast.projected_sessions_high
    return (
        f"{_counted(forecast.projected_sessions, 'session')} at the period's end "
        f"({limit_of(low)} to {limit_of(high)} in {forecast.range_coverage:.0%} of cases)"
    )


def _show_advice(shell: Shell, analysis: pb.CostAnalysis) -> None:
    shell.output.print()
    if not analysis.recommendations:
        shell.output.say("Nothing would cost less than what you have.")
    for one in analysis.recommendations:
        saving = one.potential_savings
        saves = saving.units > 0 or saving.nanos > 0
        shell.output.say(f"• {one.message}" + (f" Saves {dollars(saving)} a month." if saves else ""))


def _draw(path: Path, forecast: pb.Forecast) -> None:
    # Only here: nobody else needs the renderer.
    from flowstack.charts import ChartDay, usage_svg

    days = [
        ChartDay(
            point.end_time.ToDatetime(tzinfo=UTC),
            point.sessions,
            point.sessions_low,
            point.sessions_high,
            point.actual,
        )
        for point in forecast.points
    ]
    title = f"Sessions from {date_of(forecast.period_start_time)} to {date_of(forecast.period_end_time)}"
    drawn = usage_svg(title, days, sessions_used=forecast.sessions_used, sessions_limit=forecast.sessions_limit)
    try:
        path.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}. Name another file.") from None
