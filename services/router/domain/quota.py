"""What the router asks of quota, and what it is told. Plain tuples, because every session makes a handful of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from services.router.domain.outcome import SessionState
from services.router.domain.request import Candidate


class Quota(NamedTuple):
    """An account's quota in its current period. Times are in microseconds since 1970, UTC."""

    account_id: str
    plan_id: str
    period_start_us: int
    period_end_us: int
    session_limit: int
    sessions_committed: int
    managed_sessions: int
    byok_sessions: int
    sessions_reserved: int
    sessions_remaining: int
    managed_providers: tuple[str, ...]
    max_concurrent_sessions: int
    max_output_tokens: int
    """The cap on output tokens of one provider call; 0 means none."""
    max_tool_rounds: int
    sessions_available: bool
    refusal_reason: str
    entitlement_revision: int


class Reservation(NamedTuple):
    """The unit to hold: for whom, for which candidates, for how long (in seconds)."""

    account_id: str
    session_id: str
    candidates: tuple[Candidate, ...]
    lease_s: float
    request_id: str
    api_key_id: str
    labels: Mapping[str, str]


class Grant(NamedTuple):
    """Quota's answer to a reservation. A replayed one entitles nobody to start a provider."""

    quota: Quota
    replayed: bool


class Resolution(NamedTuple):
    """Where a session stands after a commit or release. `quota` is None where the account has none."""

    state: SessionState
    quota: Quota | None
