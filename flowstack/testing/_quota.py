"""Sessions and their counts. Pure: the time comes in, and nobody but the caller guards against threads.

A reservation holds its unit until it is resolved, once: used + reserved + remaining = limit at every moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from flowstack_protos.type.v1 import type_pb2 as types

from flowstack.testing._errors import FakeError
from flowstack.testing._terms import Terms
from flowstack.testing._time import DAY_US, Period, optional_timestamp, rfc3339, timestamp

REQUEST_ID_KEPT_US: Final = DAY_US
CONCURRENCY_RETRY_AFTER: Final = timedelta(seconds=1)
LEASE_US: Final = 330 * 1_000_000

_RESERVED: Final = types.SESSION_STATE_RESERVED
_COMMITTED: Final = types.SESSION_STATE_COMMITTED


@dataclass(slots=True)
class Session:
    """One session."""

    session_id: str
    account_id: str
    candidates: Sequence[types.Candidate]
    period_start_us: int
    reserve_us: int
    request_id: str
    api_key_id: str
    labels: dict[str, str]
    state: types.SessionState.ValueType = _RESERVED
    resolve_us: int = 0
    outcome: types.SessionOutcome | None = None
    release_reason: types.ReleaseReason.ValueType = types.RELEASE_REASON_UNSPECIFIED
    cost_micro: int | None = None
    """What providers charge the caller; None where that is not known, and where the operator's credentials served."""

    @property
    def is_unpriced(self) -> bool:
        """Whether providers charge the caller nobody knows what."""
        return self.counts_as == types.CREDENTIAL_MODE_BYOK and self.cost_micro is None

    @property
    def counts_as(self) -> types.CredentialMode.ValueType:
        """Whose credentials it is counted under: those that served it, else those of the first choice."""
        if self.outcome is not None and self.outcome.served_credential_mode:
            return self.outcome.served_credential_mode
        return self.candidates[0].credential_mode

    @property
    def state_name(self) -> str:
        """RESERVED, COMMITTED or RELEASED."""
        return types.SessionState.Name(self.state).removeprefix("SESSION_STATE_")

    def to_proto(self) -> types.Session:
        """The session on the wire."""
        return types.Session(
            session_id=self.session_id,
            account_id=self.account_id,
            state=self.state,
            candidates=self.candidates,
            period_start_time=timestamp(self.period_start_us),
            reserve_time=timestamp(self.reserve_us),
            expire_time=timestamp(self.reserve_us + LEASE_US),
            resolve_time=optional_timestamp(self.resolve_us),
            outcome=self.outcome,
            release_reason=self.release_reason,
            request_id=self.request_id,
            api_key_id=self.api_key_id,
            labels=self.labels,
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """What an account may do now."""

    terms: Terms
    period: Period
    refusal: FakeError | None = None
    """SUBSCRIPTION_ENDED or a block, where there is one."""


@dataclass(slots=True)
class Counts:
    """Of one period."""

    managed: int = 0
    byok: int = 0
    reserved: int = 0
    cost_micro: int = 0
    """What providers charge the caller, as far as it is known."""
    unpriced: int = 0
    """Sessions of which it is not, counted or not."""


@dataclass(slots=True)
class SessionBook:
    """An account's sessions."""

    account_id: str
    sessions: dict[str, Session] = field(default_factory=dict)
    _counts: dict[int, Counts] = field(default_factory=dict)
    _holders: dict[str, Session] = field(default_factory=dict)
    _running: int = 0

    def counts(self, period: Period) -> Counts:
        """Of one period."""
        return self._counts.setdefault(period.start_us, Counts())

    def reserve(self, session: Session, grant: Grant, now_us: int) -> None:
        """Takes a session in.

        Raises:
            FakeError: DUPLICATE_REQUEST; the grant's refusal; BYOK_REQUIRED; SESSION_QUOTA_EXCEEDED;
                CONCURRENCY_LIMIT_EXCEEDED; the first of these that applies.
        """
        holder = self._holders.get(session.request_id)
        if holder is not None and _still_holds(holder, now_us):
            raise FakeError(
                "DUPLICATE_REQUEST",
                "The request_id belongs to an earlier request that is running or was counted. It costs nothing more; "
                "send a new request_id for a new completion.",
                metadata={"session_id": holder.session_id, "session_state": holder.state_name},
            )
        refusal = self._refusal(grant, session.candidates)
        if refusal is not None:
            raise refusal
        self.sessions[session.session_id] = session
        if session.request_id:
            self._holders[session.request_id] = session
        self.counts(grant.period).reserved += 1
        self._running += 1

    def resolve(
        self,
        session: Session,
        now_us: int,
        outcome: types.SessionOutcome,
        release_reason: types.ReleaseReason.ValueType | None,
        cost_micro: int | None,
    ) -> bool:
        """Commits a session, or releases it for a reason; False where it was resolved before."""
        if session.state != _RESERVED:
            return False
        counts = self._counts[session.period_start_us]
        counts.reserved -= 1
        self._running -= 1
        session.resolve_us = now_us
        session.outcome = outcome
        if session.counts_as == types.CREDENTIAL_MODE_BYOK:
            session.cost_micro = cost_micro
            counts.cost_micro += cost_micro or 0
            counts.unpriced += session.is_unpriced
        if release_reason is not None:
            session.state = types.SESSION_STATE_RELEASED
            session.release_reason = release_reason
            return True
        session.state = _COMMITTED
        if session.counts_as == types.CREDENTIAL_MODE_MANAGED:
            counts.managed += 1
        else:
            counts.byok += 1
        return True

    def quota(self, grant: Grant) -> types.Quota:
        """The account's quota, and whether a reservation would be granted now."""
        terms, counts = grant.terms, self.counts(grant.period)
        used = counts.managed + counts.byok
        # A reservation on the caller's own credentials: what can be refused of it is the account's own state.
        refusal = self._refusal(grant, ())
        return types.Quota(
            account_id=self.account_id,
            plan_id=terms.plan_id,
            period_start_time=timestamp(grant.period.start_us),
            period_end_time=timestamp(grant.period.end_us),
            session_limit=terms.session_limit,
            sessions_committed=used,
            managed_sessions=counts.managed,
            byok_sessions=counts.byok,
            sessions_reserved=counts.reserved,
            sessions_remaining=max(0, terms.session_limit - used - counts.reserved),
            managed_providers=terms.managed_providers,
            max_concurrent_sessions=terms.max_concurrent_sessions,
            max_output_tokens=terms.max_output_tokens,
            max_tool_rounds=terms.max_tool_rounds,
            sessions_available=refusal is None,
            refusal_reason="" if refusal is None else refusal.reason,
        )

    def _refusal(self, grant: Grant, candidates: Sequence[types.Candidate]) -> FakeError | None:
        if grant.refusal is not None:
            return grant.refusal
        terms = grant.terms
        for candidate in candidates:
            managed = candidate.credential_mode == types.CREDENTIAL_MODE_MANAGED
            if managed and candidate.provider not in terms.managed_providers:
                return FakeError(
                    "BYOK_REQUIRED",
                    f"The plan {terms.plan_id} does not include {candidate.provider}. "
                    "Send credentials of your own for it, or change the plan.",
                    metadata={"provider": candidate.provider, "plan": terms.plan_id},
                )
        counts = self.counts(grant.period)
        in_use = counts.managed + counts.byok + counts.reserved
        if in_use >= terms.session_limit:
            return _quota_exceeded(in_use, grant)
        most = terms.max_concurrent_sessions
        if self._running >= most:
            return FakeError(
                "CONCURRENCY_LIMIT_EXCEEDED",
                f"The plan {terms.plan_id} runs {most} sessions at once. Try again when one is over.",
                metadata={"limit": str(most), "plan": terms.plan_id},
                retry_after=CONCURRENCY_RETRY_AFTER,
            )
        return None


def _still_holds(holder: Session, now_us: int) -> bool:
    if holder.state == _RESERVED:
        return True
    return holder.state == _COMMITTED and now_us < holder.resolve_us + REQUEST_ID_KEPT_US


def _quota_exceeded(in_use: int, grant: Grant) -> FakeError:
    terms, reset_time = grant.terms, rfc3339(grant.period.end_us)
    next_step = f"Upgrade to {terms.upgrade_plan_id} or wait" if terms.upgrade_plan_id else "Wait"
    return FakeError(
        "SESSION_QUOTA_EXCEEDED",
        f"All {terms.session_limit} sessions of the period are used or running. {next_step} until {reset_time}.",
        metadata={
            "current_usage": str(in_use),
            "limit": str(terms.session_limit),
            "plan": terms.plan_id,
            "reset_time": reset_time,
            "upgrade_plan": terms.upgrade_plan_id,
        },
    )
