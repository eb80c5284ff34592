"""Webhooks: where alerts go, in which form, and when a delivery that failed is tried again. Pure.

The form is Standard Webhooks' (github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md) or that of
Slack's incoming webhooks (api.slack.com/messaging/webhooks).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

from services.billing.domain.alerts import Alert, AlertKind
from services.shared.periods import time_from_us

WEBHOOKS_MAX: Final = 20
"""Of one account."""

SECRET_BYTES: Final = 32
"""Of a signing secret; Standard Webhooks asks for 24 to 64."""

DAY_S: Final = 24 * 3600.0
RETRY_DELAYS_S: Final = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""After the first attempt and each one that failed after it, as Standard Webhooks recommends: about three days."""

HTTP_GONE: Final = 410
"""The receiver wants no more, by Standard Webhooks."""


class WebhookFormat(IntEnum):
    """The form in which a webhook gets alerts. The numbers are the contract's."""

    STANDARD = 1
    SLACK = 2


class DeliveryState(IntEnum):
    """Where a delivery stands. The numbers are the contract's."""

    PENDING = 1
    DELIVERED = 2
    DEAD = 3


class DeliveryFailure(IntEnum):
    """Why an attempt failed. The numbers are the contract's."""

    NONE = 0
    UNRESOLVED = 1
    ADDRESS_REFUSED = 2
    UNREACHABLE = 3
    TLS = 4
    TIMED_OUT = 5
    REDIRECTED = 6
    STATUS = 7
    MALFORMED = 8
    WEBHOOK_DELETED = 9


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that alerts are posted to. Its address and secrets are sealed: the store cannot read them."""

    webhook_id: str
    account_id: str
    display_name: str
    redacted_url: str
    format: WebhookFormat
    sealed_url: bytes
    sealed_secret: bytes
    """Empty in Slack's form."""
    sealed_previous: bytes
    """Signs beside the secret until `previous_expire_us`; empty for none."""
    previous_expire_us: int
    create_us: int
    rotate_us: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alert on its way to one webhook."""

    alert_id: str
    webhook_id: str
    account_id: str
    state: DeliveryState
    attempts: int
    """All that were made."""
    tries: int
    """Those since the alert fired or was asked for again: they decide when it is given up."""
    last_attempt_us: int
    next_attempt_us: int
    """0 where none is due."""
    deliver_us: int
    last_failure: DeliveryFailure
    last_http_status: int
    fence: int
    """Raised whenever somebody takes the delivery in hand; who writes with an older one has lost it."""


class AttemptResult(NamedTuple):
    """What became of an attempt."""

    failure: DeliveryFailure
    """NONE where the receiver took it."""
    http_status: int = 0
    retry_after_s: float = 0.0
    """How long the receiver asked to be left alone; 0 for nothing."""


class NextStep(NamedTuple):
    """Where a delivery stands after an attempt, and after how long it is tried again."""

    state: DeliveryState
    delay_s: float = 0.0


def after_attempt(tries: int, result: AttemptResult, jitter: float) -> NextStep:
    """What follows from an attempt.

    Args:
        tries: how many were made before it.
        result: what became of it.
        jitter: from 0 to 1; moves the wait by up to a tenth to either side, so that what failed together does not
            come back together.
    """
    if result.failure is DeliveryFailure.NONE:
        return NextStep(DeliveryState.DELIVERED)
    if tries >= len(RETRY_DELAYS_S) or result.http_status == HTTP_GONE:
        return NextStep(DeliveryState.DEAD)
    delay_s = RETRY_DELAYS_S[tries] * (0.9 + 0.2 * jitter)
    return NextStep(DeliveryState.PENDING, max(delay_s, min(result.retry_after_s, DAY_S)))


def standard_body(alert: Alert) -> str:
    """The payload in Standard Webhooks' form. The same at every attempt, so that its repeats can be told."""
    data: dict[str, Any] = {
        "alert_id": alert.alert_id,
        "account_id": alert.account_id,
        "severity": alert.severity.name,
        "message": alert.message,
    }
    if alert.period is not None:
        data["period_start_time"] = _time(alert.period.start_us)
        data["period_end_time"] = _time(alert.period.end_us)
    if alert.kind is AlertKind.USAGE_THRESHOLD:
        data |= {
            "threshold": alert.threshold,
            "sessions_used": alert.sessions_used,
            "sessions_limit": alert.sessions_limit,
            "sessions_remaining": alert.sessions_remaining,
            "usage_percentage": alert.usage_percentage,
        }
    if alert.budget is not None:
        budget = alert.budget.budget
        data["budget"] = {
            "action": budget.action.name,
            "max_monthly_cost_micro_usd": budget.max_micro,
            "spent_micro_usd": alert.budget.spent_micro,
            "unpriced_sessions": alert.budget.unpriced,
        }
    head = {"type": _TYPES[alert.kind], "timestamp": _time(alert.create_us)}
    # The customer's own data goes out as it came: to parse it would round its numbers.
    own = f',"custom":{alert.data_json}' if alert.data_json else ""
    return f'{_json(head)[:-1]},"data":{_json(data)[:-1]}{own}}}}}'


def slack_body(alert: Alert) -> str:
    """The payload in Slack's form; `&`, `<` and `>` are escaped, as Slack asks, so that nobody is mentioned by it."""
    message = alert.message.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _json({"text": f"*{alert.severity.name.capitalize()}*: {message}"})


_TYPES: Final = {
    AlertKind.USAGE_THRESHOLD: "alert.usage_threshold",
    AlertKind.BUDGET_EXCEEDED: "alert.budget_exceeded",
    AlertKind.CUSTOM: "alert.custom",
}


def _time(time_us: int) -> str:
    return time_from_us(time_us).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
