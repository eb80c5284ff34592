"""The rules across fields, which the contracts put on messages as CEL expressions: each restated under its id. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from flowstack_protos.billing.v1 import usage_service_pb2 as usage
from flowstack_protos.router.v1 import router_service_pb2 as router

_DOLLARS_MAX: Final = 1_000_000_000
_DAY_S: Final = 86_400
_TOKENS_PER_SESSION: Final = 7_500


def _range(start: str, end: str) -> Callable[[Any], bool]:
    def is_kept(this: Any) -> bool:
        if not (this.HasField(start) and this.HasField(end)):
            return True
        return bool(getattr(this, start).ToNanoseconds() < getattr(this, end).ToNanoseconds())

    return is_kept


def _is_usd(amount: Any) -> bool:
    good = amount.currency_code == "USD" and 0 <= amount.units <= _DOLLARS_MAX and 0 <= amount.nanos <= 999_999_999
    return bool(good and amount.nanos % 1000 == 0)


def _is_unique(values: Iterable[object]) -> bool:
    listed = list(values)
    return len(set(listed)) == len(listed)


def _is_bounded(this: usage.QueryUsageRequest) -> bool:
    if not (this.HasField("start_time") and this.HasField("end_time")):
        return True
    days = {usage.USAGE_GRANULARITY_HOUR: 93, usage.USAGE_GRANULARITY_DAY: 1_100}.get(this.granularity, 3_660)
    return this.end_time.seconds - this.start_time.seconds <= _DAY_S * days


def _has_label_key(this: usage.QueryUsageRequest) -> bool:
    return this.label_key != "" or usage.USAGE_DIMENSION_LABEL not in this.group_by


def _is_within_total(this: usage.EstimateCostRequest) -> bool:
    total = this.tokens_per_session or _TOKENS_PER_SESSION
    return not this.HasField("output_tokens_per_session") or this.output_tokens_per_session <= total


CROSS_RULES: Final[Mapping[str, Callable[[Any], bool]]] = MappingProxyType(
    {
        "range.start_before_end": _range("start_time", "end_time"),
        "contract.effective_before_end": _range("effective_time", "end_time"),
        "contract.plan_or_offer": lambda this: this.plan_id != "" or this.offer_id != "",
        "money.usd_not_negative": _is_usd,
        "money.usd_positive": lambda this: _is_usd(this) and (this.units > 0 or this.nanos > 0),
        "create_credit_note.lines_unique": lambda this: _is_unique(line.line_number for line in this.lines),
        "alert_settings.sinks_unique": lambda this: _is_unique(sink.webhook_id for sink in this.sinks),
        "update_mask.not_empty": lambda this: len(this.paths) > 0,
        "update_mask.whole_fields": lambda this: not any("." in path for path in this.paths),
        "suspend_account.reason": lambda this: this.lift or this.reason != "",
        "suspend_account.lift_alone": lambda this: (
            not this.lift or (this.reason == "" and not this.HasField("until_time"))
        ),
        "query_usage.range_bounded": _is_bounded,
        "query_usage.label_key": _has_label_key,
        "query_usage.label_value": lambda this: not this.HasField("label_value") or this.label_key != "",
        "estimate_cost.output_within_total": _is_within_total,
        "store.if_version_needs_key": lambda this: not this.HasField("if_version") or this.HasField("key"),
        "delete.if_version_needs_key": lambda this: not this.HasField("if_version") or this.HasField("key"),
        "query.sort_unique": lambda this: _is_unique(sort.field for sort in this),
        "tools.unique_names": lambda this: _is_unique(tool.name for tool in this),
        "tool_choice.tool_name": lambda this: (this.mode == router.TOOL_CHOICE_MODE_TOOL) == (this.tool_name != ""),
        "byok.one_for_each_provider": lambda this: _is_unique(one.WhichOneof("credentials") for one in this),
    }
)
"""By the rule's id: whether a value keeps it."""
