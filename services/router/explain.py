"""Tells a client why its session ended: the reason's sentence, with the cause and the next step."""

from __future__ import annotations

from services.router.domain.outcome import SessionState
from services.shared.errors import Reason

_SENTENCES = {
    Reason.PROVIDER_UNAVAILABLE: "The provider could not serve the session. Try again, or name a fallback.",
    Reason.PROVIDER_RATE_LIMITED: "The provider limits the rate. Wait, then try again, or name a fallback.",
    Reason.PROVIDER_REJECTED_REQUEST: "The provider refused the request or its key. Correct it before trying again.",
    Reason.INVALID_REQUEST: "The session was broken off by its caller. Send what was owed within the time.",
    Reason.BYOK_REQUIRED: "The operator has no credentials for that provider. Send your own in byok.",
    Reason.SESSION_TIME_LIMIT: "The session's time limit passed before any output. Try again, or ask for less.",
    Reason.SHUTTING_DOWN: "This router is shutting down and could not let the session finish. Try again.",
    Reason.QUOTA_UNAVAILABLE: "Quota did not confirm a reservation, so no session started. Try again.",
    Reason.INTERNAL: "FlowStack failed at this session. It is logged; try again, and report it if it stays.",
}


def explanation(reason: Reason, detail: str, *, counted: bool, state: SessionState) -> str:
    """The message for an error of a session that is to be counted or not, and stands so at quota by now."""
    verdict = "The session was not counted."
    if counted:
        verdict = "The session will be counted." if state is SessionState.RESERVED else "The session was counted."
    return " ".join(part for part in (_SENTENCES[reason], verdict, detail) if part)


def session_metadata(session_id: str, state: SessionState) -> dict[str, str]:
    """What every error after the reservation says of its session. One that is still RESERVED is not counted yet."""
    counted = state is SessionState.COMMITTED
    return {"session_id": session_id, "session_state": state.name, "counted": "true" if counted else "false"}
