"""How often an account may call what sends something out."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.billing.store import Transaction
from services.shared.errors import FlowStackError, Reason

CALLS_PER_MINUTE: Final = 60
MINUTE_US: Final = 60_000_000


async def count_call(transaction: Transaction, account_id: str, method: str, now_us: int, what: str) -> None:
    """Refuses more than 60 calls of a method in any 60 s. The account is locked, so that none is miscounted.

    Args:
        transaction: has locked the account.
        account_id: whose calls are counted.
        method: of each method by itself.
        now_us: the present.
        what: what cannot be done more often, for people.

    Raises:
        FlowStackError: ALERT_RATE_LIMITED.
    """
    times = [time_us for time_us in await transaction.alerts.calls(account_id, method) if time_us > now_us - MINUTE_US]
    if len(times) >= CALLS_PER_MINUTE:
        wait_us = times[0] + MINUTE_US - now_us
        raise FlowStackError(
            Reason.ALERT_RATE_LIMITED,
            f"At most {CALLS_PER_MINUTE} {what} a minute. Try again in {-(-wait_us // 1_000_000)} s.",
            retry_after=timedelta(microseconds=wait_us),
        )
    await transaction.alerts.put_calls(account_id, method, [*times, now_us])
