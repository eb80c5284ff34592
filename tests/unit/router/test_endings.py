"""The endings, row by row."""

from __future__ import annotations

import itertools

import pytest

from services.router.domain.endings import Cause, Ending, FailedAttempt, Situation, decide
from services.router.domain.outcome import AttemptFailure, FinishReason, ReleaseReason
from services.router.domain.request import CredentialMode
from services.shared.errors import Reason

MANAGED, BYOK = CredentialMode.MANAGED, CredentialMode.BYOK


def failed(*attempts: tuple[AttemptFailure, CredentialMode]) -> tuple[FailedAttempt, ...]:
    return tuple(FailedAttempt(failure, mode) for failure, mode in attempts)


ROWS = [
    (
        "the completion ends normally",
        Situation(Cause.FINISHED, output_begun=True, finish_reason=FinishReason.STOP),
        Ending(FinishReason.STOP),
    ),
    (
        "the completion ends normally without a word",
        Situation(Cause.FINISHED, finish_reason=FinishReason.CONTENT_FILTER),
        Ending(FinishReason.CONTENT_FILTER),
    ),
    (
        "the client goes away after output, managed",
        Situation(Cause.CLIENT_GONE, output_begun=True, alive=MANAGED),
        Ending(FinishReason.CANCELLED),
    ),
    (
        "the client goes away after output, BYOK",
        Situation(Cause.CLIENT_GONE, output_begun=True, alive=BYOK),
        Ending(FinishReason.CANCELLED),
    ),
    (
        "the client goes away while tool results are owed",
        Situation(Cause.CLIENT_GONE, output_begun=True),
        Ending(FinishReason.CANCELLED),
    ),
    (
        "the client goes away before output, managed",
        Situation(Cause.CLIENT_GONE, alive=MANAGED),
        Ending(FinishReason.CANCELLED),
    ),
    (
        "the client goes away before output, BYOK",
        Situation(Cause.CLIENT_GONE, alive=BYOK),
        Ending(FinishReason.CANCELLED, ReleaseReason.CLIENT_CANCELLED),
    ),
    (
        "the client goes away before anything was sent, or between attempts",
        Situation(Cause.CLIENT_GONE),
        Ending(FinishReason.CANCELLED, ReleaseReason.CLIENT_CANCELLED),
    ),
    (
        "the client breaks the tool loop",
        Situation(Cause.CALLER_ERROR, output_begun=True),
        Ending(FinishReason.CALLER_ERROR, error=Reason.INVALID_REQUEST),
    ),
    (
        "the client breaks the tool loop after an answer without a word",
        Situation(Cause.CALLER_ERROR, answered=True),
        Ending(FinishReason.CALLER_ERROR, error=Reason.INVALID_REQUEST),
    ),
    (
        "the reader stalls",
        Situation(Cause.READER_STALLED, output_begun=True, alive=BYOK),
        Ending(FinishReason.CALLER_ERROR, error=Reason.INVALID_REQUEST),
    ),
    (
        "the reader stalls before output on its own key",
        Situation(Cause.READER_STALLED, alive=BYOK),
        Ending(FinishReason.CALLER_ERROR, ReleaseReason.CLIENT_CANCELLED, Reason.INVALID_REQUEST),
    ),
    (
        "the time limit before output",
        Situation(Cause.TIME_LIMIT, alive=MANAGED),
        Ending(FinishReason.TIME_LIMIT, ReleaseReason.TIME_LIMIT, Reason.SESSION_TIME_LIMIT),
    ),
    (
        "the time limit after output",
        Situation(Cause.TIME_LIMIT, output_begun=True, alive=MANAGED),
        Ending(FinishReason.TIME_LIMIT),
    ),
    (
        "the drain, though output began",
        Situation(Cause.SHUTTING_DOWN, output_begun=True, alive=MANAGED),
        Ending(FinishReason.FAILED, ReleaseReason.SHUTTING_DOWN, Reason.SHUTTING_DOWN),
    ),
    (
        "a defect, though output began",
        Situation(Cause.INTERNAL, output_begun=True),
        Ending(FinishReason.FAILED, ReleaseReason.INTERNAL, Reason.INTERNAL),
    ),
    (
        "the reservation's outcome is not known",
        Situation(Cause.RESERVATION_UNKNOWN),
        Ending(FinishReason.FAILED, ReleaseReason.RESERVATION_UNKNOWN, Reason.QUOTA_UNAVAILABLE),
    ),
    (
        "nobody has credentials for a candidate",
        Situation(Cause.CREDENTIALS_MISSING),
        Ending(FinishReason.FAILED, ReleaseReason.REQUEST_REJECTED, Reason.BYOK_REQUIRED),
    ),
    (
        "every candidate fails, the last is refused",
        Situation(
            Cause.PROVIDER_FAILED,
            failures=failed((AttemptFailure.PROVIDER_ERROR, BYOK), (AttemptFailure.REQUEST_REJECTED, BYOK)),
        ),
        Ending(FinishReason.FAILED, ReleaseReason.PROVIDER_FAILED, Reason.PROVIDER_UNAVAILABLE),
    ),
    (
        "every candidate fails, one is limited and one refused",
        Situation(
            Cause.PROVIDER_FAILED,
            failures=failed((AttemptFailure.RATE_LIMITED, BYOK), (AttemptFailure.REQUEST_REJECTED, BYOK)),
        ),
        Ending(FinishReason.FAILED, ReleaseReason.PROVIDER_FAILED, Reason.PROVIDER_RATE_LIMITED),
    ),
    (
        "every candidate refuses",
        Situation(
            Cause.PROVIDER_FAILED,
            failures=failed((AttemptFailure.CREDENTIALS_REFUSED, BYOK), (AttemptFailure.REQUEST_REJECTED, MANAGED)),
        ),
        Ending(FinishReason.FAILED, ReleaseReason.REQUEST_REJECTED, Reason.PROVIDER_REJECTED_REQUEST),
    ),
]


@pytest.mark.parametrize(("situation", "ending"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_row(situation: Situation, ending: Ending) -> None:
    assert decide(situation) == ending


OWN_KEY = {
    (AttemptFailure.CREDENTIALS_REFUSED, BYOK): Reason.PROVIDER_REJECTED_REQUEST,
    (AttemptFailure.RATE_LIMITED, BYOK): Reason.PROVIDER_RATE_LIMITED,
}
REQUEST = {
    (AttemptFailure.REQUEST_REJECTED, BYOK): Reason.PROVIDER_REJECTED_REQUEST,
    (AttemptFailure.REQUEST_REJECTED, MANAGED): Reason.PROVIDER_REJECTED_REQUEST,
}


@pytest.mark.parametrize("answered", [False, True], ids=["first round", "later round"])
@pytest.mark.parametrize(("failure", "mode"), list(itertools.product(AttemptFailure, CredentialMode)))
def test_a_failure_after_output_counts_where_it_is_the_callers_doing(
    failure: AttemptFailure, mode: CredentialMode, answered: bool
) -> None:
    ending = decide(
        Situation(Cause.PROVIDER_FAILED, output_begun=True, answered=answered, failures=failed((failure, mode)))
    )

    # A provider that has begun to answer a request has taken it: only what a later round adds can be refused.
    callers_doing = OWN_KEY | REQUEST if answered else OWN_KEY
    if (failure, mode) in callers_doing:
        assert ending == Ending(FinishReason.CALLER_ERROR, error=callers_doing[failure, mode])
    else:
        limited = failure is AttemptFailure.RATE_LIMITED
        assert ending == Ending(
            FinishReason.FAILED,
            ReleaseReason.PROVIDER_FAILED,
            Reason.PROVIDER_RATE_LIMITED if limited else Reason.PROVIDER_UNAVAILABLE,
        )


@pytest.mark.parametrize(("failure", "mode"), list(itertools.product(AttemptFailure, CredentialMode)))
def test_no_failure_before_output_counts(failure: AttemptFailure, mode: CredentialMode) -> None:
    assert not decide(Situation(Cause.PROVIDER_FAILED, failures=failed((failure, mode)))).counted


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("output_begun", [True, False])
@pytest.mark.parametrize("alive", [None, MANAGED, BYOK])
def test_every_situation_has_an_ending_that_says_whether_it_counted(
    cause: Cause, output_begun: bool, alive: CredentialMode | None
) -> None:
    failures = failed((AttemptFailure.PROVIDER_ERROR, BYOK))
    ending = decide(Situation(cause, output_begun=output_begun, alive=alive, failures=failures))

    assert ending.counted == (ending.release_reason is None)
    if ending.error is None and cause is not Cause.CLIENT_GONE:
        assert ending.counted, "a stream that ends well is counted"
