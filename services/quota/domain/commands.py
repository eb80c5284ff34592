"""What can be asked of a session, and what is answered."""

from __future__ import annotations

from typing import Final, NamedTuple

from services.quota.domain.model import Candidate, EventType, Outcome, Quota, Session
from services.shared.errors import FlowStackError

LEASE_US_DEFAULT: Final = 330 * 1_000_000
"""The session's time limit of 300 s and a margin for the commit."""


class Reserve(NamedTuple):
    """Hold one unit of the current period."""

    account_id: str
    session_id: str
    candidates: tuple[Candidate, ...]
    lease_us: int
    request_id: str
    api_key_id: str
    labels: tuple[tuple[str, str], ...]


class Commit(NamedTuple):
    """Count a reserved session."""

    account_id: str
    session_id: str
    outcome: Outcome


class Release(NamedTuple):
    """Give a reserved session's unit back."""

    account_id: str
    session_id: str
    reason: int
    outcome: Outcome | None


Command = Reserve | Commit | Release


class Done(NamedTuple):
    """A command succeeded, now or, if `replayed`, earlier."""

    session: Session
    quota: Quota | None
    """After the command; None where the account has no entitlement (a tombstone)."""
    replayed: bool


Result = Done | FlowStackError


class Change(NamedTuple):
    """What a decision changes: one session, the counters of its period, and perhaps an event."""

    session: Session
    is_new: bool
    reserved: int
    managed: int
    byok: int
    """The three are differences."""
    event: EventType | None


class Decision(NamedTuple):
    """What a command answers and what it changes; nothing where it failed or was a repeat."""

    session: Session | None
    replayed: bool
    error: FlowStackError | None
    change: Change | None
