"""The decisions: what each command answers and changes, given an account's state and the time.

Precedence of a reserve's answers; the first that applies is given, by every store:

    1  INVALID_REQUEST              the session_id is none, or was made over 24 h ago or ahead
    2  replay                       the session is known with these parameters
       SESSION_PARAMETERS_DIFFER    … with other parameters
       SESSION_ALREADY_RESOLVED     … as a tombstone: it was released before it was reserved
    3  DUPLICATE_REQUEST            the request_id belongs to a session that runs or was counted
    4  ENTITLEMENT_MISSING          no entitlement, or none in force yet
    5  SUBSCRIPTION_ENDED
    6  BUDGET_EXCEEDED, PAYMENT_OVERDUE, ACCOUNT_SUSPENDED: the block
    7  BYOK_REQUIRED                a managed candidate that the plan does not include
    8  SESSION_QUOTA_EXCEEDED
    9  CONCURRENCY_LIMIT_EXCEEDED

A store runs `expire` on every session that is due before it decides anything at that time, so that a session found
RESERVED here still holds its lease.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.quota.domain.commands import Change, Command, Commit, Decision, Release, Reserve
from services.quota.domain.entitlements import block_error, in_force
from services.quota.domain.model import (
    DAY_US,
    Account,
    Counters,
    CredentialMode,
    EventType,
    InForce,
    Outcome,
    Session,
    SessionState,
)
from services.quota.domain.session_ids import made_us
from services.shared.errors import FlowStackError, Reason, invalid_request
from services.shared.periods import time_from_us

SESSION_ID_AGE_US_MAX: Final = DAY_US
"""A session_id that is older is refused, so that what was pruned cannot come again."""

REQUEST_ID_KEPT_US: Final = DAY_US
"""How long after its session resolved a request_id is remembered."""

CONCURRENCY_RETRY_AFTER: Final = timedelta(seconds=1)


def decide(
    account: Account, command: Command, now_us: int, stored: Session | None, request_holder: Session | None
) -> Decision:
    """Decides one command. Pure: `account` is read, and changed by `apply` only.

    Args:
        account: the state of the command's account.
        command: what is asked.
        now_us: quota's clock, which never goes back.
        stored: the session of the command's session_id, if there is one.
        request_holder: for a reserve with a request_id, the session that holds it, if there is one.
    """
    if isinstance(command, Reserve):
        return _reserve(account, command, now_us, stored, request_holder)
    if isinstance(command, Commit):
        return _commit(command, now_us, stored)
    return _release(command, now_us, stored)


def _failed(error: FlowStackError) -> Decision:
    return Decision(None, False, error, None)


def _replayed(session: Session) -> Decision:
    return Decision(session, True, None, None)


def _reserve(
    account: Account, command: Reserve, now_us: int, stored: Session | None, request_holder: Session | None
) -> Decision:
    if not _is_fresh(command.session_id, now_us):
        return _failed(invalid_request("session_id", "must have been made within the last 24 h"))
    if stored is not None:
        return _repeat_of_reserve(command, stored)
    if request_holder is not None and _still_holds(request_holder, now_us):
        return _failed(_duplicate(request_holder))
    force = in_force(account, now_us)
    error = _refusal(account, command, now_us, force)
    if error is not None:
        return _failed(error)
    assert force is not None
    assert account.entitlement is not None
    session = Session(
        command.session_id,
        command.account_id,
        SessionState.RESERVED,
        command.candidates,
        force.period_start_us,
        now_us,
        now_us + command.lease_us,
        0,
        None,
        0,
        command.request_id,
        command.api_key_id,
        command.labels,
        account.entitlement.revision,
    )
    return Decision(session, False, None, Change(session, True, 1, 0, 0, None))


def _is_fresh(session_id: str, now_us: int) -> bool:
    made = made_us(session_id)
    return made is not None and abs(now_us - made) <= SESSION_ID_AGE_US_MAX


def _repeat_of_reserve(command: Reserve, stored: Session) -> Decision:
    if stored.is_tombstone:
        return _failed(_already_resolved(stored))
    same = (
        stored.candidates == command.candidates
        and stored.request_id == command.request_id
        and stored.api_key_id == command.api_key_id
        and stored.labels == command.labels
        and stored.expire_us - stored.reserve_us == command.lease_us
    )
    return _replayed(stored) if same else _failed(_parameters_differ(stored))


def _still_holds(holder: Session, now_us: int) -> bool:
    if holder.state is SessionState.RESERVED:
        return True
    return holder.state is SessionState.COMMITTED and now_us < holder.resolve_us + REQUEST_ID_KEPT_US


def _refusal(account: Account, command: Reserve, now_us: int, force: InForce | None) -> FlowStackError | None:
    """Steps 4 to 9 of the table."""
    entitlement = account.entitlement
    if entitlement is None or force is None:
        return entitlement_missing()
    if force.has_ended:
        return FlowStackError(
            Reason.SUBSCRIPTION_ENDED, "The account's subscription has ended. Choose a plan to start new sessions."
        )
    blocked = block_error(entitlement, now_us) if entitlement.block else None
    if blocked is not None:
        return blocked
    term = force.term
    for candidate in command.candidates:
        if candidate.credential_mode != CredentialMode.BYOK and candidate.provider not in term.managed_providers:
            return FlowStackError(
                Reason.BYOK_REQUIRED,
                f"The plan {term.plan_id} does not include {candidate.provider}. "
                "Send credentials of your own for it, or change the plan.",
                metadata={"provider": candidate.provider, "plan": term.plan_id},
            )
    counters = account.counters.get(force.period_start_us) or Counters()
    in_use = counters.managed + counters.byok + counters.reserved
    if in_use >= term.session_limit:
        return _quota_exceeded(in_use, force)
    if account.running >= term.max_concurrent_sessions:
        return FlowStackError(
            Reason.CONCURRENCY_LIMIT_EXCEEDED,
            f"The plan {term.plan_id} runs {term.max_concurrent_sessions} sessions at once. "
            "Try again when one is over.",
            metadata={"limit": str(term.max_concurrent_sessions), "plan": term.plan_id},
            retry_after=CONCURRENCY_RETRY_AFTER,
        )
    return None


def _quota_exceeded(in_use: int, force: InForce) -> FlowStackError:
    term = force.term
    reset_time = time_from_us(force.period_end_us).isoformat().replace("+00:00", "Z")
    next_step = f"Upgrade to {term.upgrade_plan_id} or wait" if term.upgrade_plan_id else "Wait"
    return FlowStackError(
        Reason.SESSION_QUOTA_EXCEEDED,
        f"All {term.session_limit} sessions of the period are used or running. {next_step} until {reset_time}.",
        metadata={
            "current_usage": str(in_use),
            "limit": str(term.session_limit),
            "plan": term.plan_id,
            "reset_time": reset_time,
            "upgrade_plan": term.upgrade_plan_id,
        },
    )


def _commit(command: Commit, now_us: int, stored: Session | None) -> Decision:
    if stored is None:
        return _failed(session_not_found())
    if stored.state is SessionState.COMMITTED:
        return _replayed(stored) if stored.outcome == command.outcome else _failed(_parameters_differ(stored))
    if stored.state is not SessionState.RESERVED:
        return _failed(_already_resolved(stored))
    session = _resolved(stored, SessionState.COMMITTED, now_us, command.outcome, 0)
    managed = _counts_as_managed(session, command)
    return Decision(
        session, False, None, Change(session, False, -1, int(managed), int(not managed), EventType.COMMITTED)
    )


def _counts_as_managed(session: Session, command: Commit) -> bool:
    # A session that was counted without having been served counts as what its first choice would have been.
    mode = command.outcome.served_credential_mode or session.candidates[0].credential_mode
    return mode == CredentialMode.MANAGED


def _release(command: Release, now_us: int, stored: Session | None) -> Decision:
    if stored is None:
        return _tombstone(command, now_us)
    if stored.state is SessionState.RELEASED:
        same = stored.release_reason == command.reason and stored.outcome == command.outcome
        return _replayed(stored) if same else _failed(_parameters_differ(stored))
    if stored.state is not SessionState.RESERVED:
        return _failed(_already_resolved(stored))
    session = _resolved(stored, SessionState.RELEASED, now_us, command.outcome, command.reason)
    return Decision(session, False, None, Change(session, False, -1, 0, 0, EventType.RELEASED))


def _tombstone(command: Release, now_us: int) -> Decision:
    if not _is_fresh(command.session_id, now_us):
        return _failed(session_not_found())
    session = Session(
        command.session_id,
        command.account_id,
        SessionState.RELEASED,
        (),
        0,
        0,
        0,
        now_us,
        command.outcome,
        command.reason,
        "",
        "",
        (),
        0,
    )
    return Decision(session, False, None, Change(session, True, 0, 0, 0, EventType.TOMBSTONE))


def expire(session: Session, now_us: int) -> Change:
    """The end of a lease: the session is not counted and its unit is free again."""
    expired = _resolved(session, SessionState.EXPIRED, now_us, None, 0)
    return Change(expired, False, -1, 0, 0, EventType.EXPIRED)


def _resolved(
    session: Session, state: SessionState, now_us: int, outcome: Outcome | None, release_reason: int
) -> Session:
    # Spelled out, because _replace takes three times as long and every session comes through here.
    return Session(
        session.session_id,
        session.account_id,
        state,
        session.candidates,
        session.period_start_us,
        session.reserve_us,
        session.expire_us,
        now_us,
        outcome,
        release_reason,
        session.request_id,
        session.api_key_id,
        session.labels,
        session.entitlement_revision,
    )


def apply(account: Account, change: Change) -> None:
    """Brings `account` up to date with a change of one of its sessions."""
    if change.session.is_tombstone:
        return
    counters = account.counters.get(change.session.period_start_us)
    if counters is None:
        counters = account.counters[change.session.period_start_us] = Counters()
    counters.reserved += change.reserved
    counters.managed += change.managed
    counters.byok += change.byok
    account.running += change.reserved


def session_not_found() -> FlowStackError:
    """SESSION_NOT_FOUND."""
    return FlowStackError(Reason.SESSION_NOT_FOUND, "The account has no session with this session_id. Check both ids.")


def entitlement_missing() -> FlowStackError:
    """ENTITLEMENT_MISSING."""
    return FlowStackError(
        Reason.ENTITLEMENT_MISSING,
        "No entitlement is in force for the account. "
        "Open the account at billing, or wait until its subscription begins.",
    )


def _already_resolved(session: Session) -> FlowStackError:
    return FlowStackError(
        Reason.SESSION_ALREADY_RESOLVED,
        f"The session is {session.state.name} already; a session is resolved once.",
        metadata={"session_id": session.session_id, "session_state": session.state.name},
    )


def _parameters_differ(session: Session) -> FlowStackError:
    return FlowStackError(
        Reason.SESSION_PARAMETERS_DIFFER,
        "The session_id was used before with other parameters. Repeat a command unchanged, or choose a new session_id.",
        metadata={"session_id": session.session_id, "session_state": session.state.name},
    )


def _duplicate(holder: Session) -> FlowStackError:
    return FlowStackError(
        Reason.DUPLICATE_REQUEST,
        "The request_id belongs to an earlier request that is running or was counted. It costs nothing more; "
        "send a new request_id for a new completion.",
        metadata={"session_id": holder.session_id, "session_state": holder.state.name},
    )
