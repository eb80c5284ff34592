"""`flowstack estimate`: what sessions would cost, by the published example's prices beside today's."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2 as types

from flowstack._methods import UsageService
from flowstack.cli.shell import shell_of
from flowstack.cli.values import date_of, dollars, limit_of, optional_dollars

EXAMPLE: Final = "seed-example"
TOKENS_MAX: Final = 500_000_000


def estimate(
    context: typer.Context,
    sessions: Annotated[int, typer.Argument(min=1, max=1_000_000_000, help="Sessions a month.")],
    provider: Annotated[str, typer.Option(help="Whom sessions on your own keys run at.")] = "openai",
    model: Annotated[str, typer.Option(help="Its model, by name or alias.")] = "gpt-4",
    input_tokens: Annotated[int, typer.Option(min=1, max=TOKENS_MAX, help="Tokens of a session's prompts.")] = 5_625,
    output_tokens: Annotated[int, typer.Option(min=0, max=TOKENS_MAX, help="Tokens of its answers.")] = 1_875,
) -> None:
    """What sessions would cost on each plan that allows them, managed beside your own keys.

    Provider costs come twice: at the prices of the published comparison, which are an example, and at today's.
    """
    shell = shell_of(context)
    request = UsageService.EstimateCost.request(
        sessions_per_month=sessions,
        provider=provider,
        model=model,
        tokens_per_session=input_tokens + output_tokens,
        output_tokens_per_session=output_tokens,
    )
    current = shell.client.call(UsageService.EstimateCost, request)
    request.price_table = EXAMPLE
    example = shell.client.call(UsageService.EstimateCost, request)
    shell.output.table(
        ("plan", "#sessions", "keys", "#fee", "#provider, example", "#total", "#provider, today", "#total"),
        _rows(example, current),
        {"example": example, "current": current},
        f"No plan on sale allows {limit_of(sessions)} sessions a month. Ask the operator for a contract.",
    )
    if not shell.output.as_json and current.estimates:
        for note in _notes(request, current):
            shell.output.say(note)


def _rows(example: pb.EstimateCostResponse, current: pb.EstimateCostResponse) -> list[tuple[str, ...]]:
    today = {_place(one): one for one in current.estimates}
    rows: list[tuple[str, ...]] = []
    for one in sorted(example.estimates, key=_place):
        now = today.get(_place(one), pb.CostEstimate())
        rows.append(
            (
                f"{one.offer_id} (offer)" if one.offer_id else one.plan_id,
                limit_of(one.session_limit),
                "managed" if one.credential_mode == types.CREDENTIAL_MODE_MANAGED else "your own",
                dollars(one.platform_fee),
                *_costs(one),
                *_costs(now),
            )
        )
    return rows


def _place(one: pb.CostEstimate) -> tuple[float, str, str, int]:
    """Where an estimate stands, and what is the same one at other prices: by fee, managed first."""
    fee = one.platform_fee.units + one.platform_fee.nanos / 1e9
    return (fee, one.plan_id, one.offer_id, one.credential_mode)


def _costs(one: pb.CostEstimate) -> tuple[str, str]:
    """The provider's part and the total."""
    if one.credential_mode == types.CREDENTIAL_MODE_MANAGED:
        return "included", optional_dollars(one, "total")
    return _range(one, "provider_cost"), _range(one, "total")


def _range(one: pb.CostEstimate, field: str) -> str:
    low, high = optional_dollars(one, field), optional_dollars(one, f"{field}_high")
    return low if low == high else f"{low} to {high}"


def _notes(request: pb.EstimateCostRequest, current: pb.EstimateCostResponse) -> list[str]:
    outputs = request.output_tokens_per_session
    since = f" of {date_of(current.price_time)}" if current.HasField("price_time") else ""
    notes = [
        f"A session is taken to have {limit_of(request.tokens_per_session - outputs)} tokens of prompts and "
        f"{limit_of(outputs)} of answers.",
        f"Example: the prices of the published comparison, which were never a provider's. Today: those of "
        f"{request.provider} for {current.served_model or request.model}, {current.price_table_version}{since}.",
    ]
    if current.served_model not in ("", request.model):
        notes.append(f"{request.model} is an alias: {current.served_model} is what runs.")
    if not all(one.HasField("total") for one in current.estimates):
        notes.append(f"Today's price of {current.served_model or request.model} is not known here.")
    return notes
