from __future__ import annotations

from services.router.domain.endings import Ending
from services.router.domain.events import Finish
from services.router.domain.outcome import Attempt, AttemptFailure, FinishReason, ReleaseReason, Usage
from services.router.domain.request import Candidate, CredentialMode
from services.router.domain.tally import Tally

FIRST = Candidate("openai", "gpt-4o", CredentialMode.BYOK)
SECOND = Candidate("backup", "m", CredentialMode.MANAGED)
COUNTED = Ending(FinishReason.STOP)
FREE = Ending(FinishReason.CANCELLED, ReleaseReason.CLIENT_CANCELLED)


def finish(*tokens: int | None, reason: FinishReason = FinishReason.STOP) -> Finish:
    return Finish(reason, reason.value, Usage(*tokens))


def test_a_fallback_that_serves() -> None:
    tally = Tally(arrived_s=10.0)
    tally.begin(FIRST, 10.5)
    tally.fail(AttemptFailure.PROVIDER_ERROR, "req-1", 11.0)
    tally.begin(SECOND, 11.0)
    tally.opened("req-2")
    tally.output(12.0)
    tally.output(13.0)
    tally.finish(finish(7, 3), 14.0)
    outcome = tally.outcome(COUNTED)

    assert outcome.attempts == (
        Attempt("openai", "gpt-4o", AttemptFailure.PROVIDER_ERROR),
        Attempt("backup", "m", None, 7, 3),
    )
    assert (outcome.served_provider, outcome.served_credential_mode) == ("backup", CredentialMode.MANAGED)
    assert outcome.usage == Usage(7, 3)
    assert outcome.provider_latency_us == 3_500_000
    assert outcome.time_to_first_token_us == 2_000_000
    assert outcome.provider_request_id == "req-2"


def test_rounds_are_one_attempt_and_unknown_stays_unknown() -> None:
    tally = Tally(0.0)
    for tokens in ((10, 1, 5), (20, 2, None)):
        tally.begin(FIRST, 0.0)
        tally.output(0.0)
        tally.finish(finish(*tokens), 1.0)
    outcome = tally.outcome(COUNTED)

    assert outcome.usage == Usage(30, 3, None)
    assert outcome.attempts == (Attempt("openai", "gpt-4o", None, 30, 3),)


def test_a_later_round_that_fails_leaves_the_total_unknown() -> None:
    tally = Tally(0.0)
    tally.begin(FIRST, 0.0)
    tally.output(0.0)
    tally.finish(finish(10, 1), 1.0)
    tally.begin(FIRST, 1.0)
    tally.fail(AttemptFailure.TRUNCATED, "", 2.0)
    outcome = tally.outcome(FREE)

    assert outcome.usage == Usage()
    assert outcome.attempts == (Attempt("openai", "gpt-4o", AttemptFailure.TRUNCATED),)
    assert outcome.served_provider == "openai"


def test_an_abandoned_call_has_served_only_where_it_counts() -> None:
    for ending, served in ((COUNTED, "openai"), (FREE, "")):
        tally = Tally(0.0)
        tally.begin(FIRST, 0.0)
        tally.sent()
        assert tally.alive is CredentialMode.BYOK
        tally.abandon(1.0)
        assert tally.alive is None
        outcome = tally.outcome(ending)
        assert outcome.served_provider == served
        assert outcome.attempts == (Attempt("openai", "gpt-4o", AttemptFailure.ABANDONED),)
        assert outcome.time_to_first_token_us is None


def test_a_call_is_alive_from_when_its_request_goes_out() -> None:
    tally = Tally(0.0)
    tally.begin(FIRST, 0.0)
    assert tally.alive is None
    tally.sent()
    assert tally.alive is CredentialMode.BYOK
    tally.fail(AttemptFailure.PROVIDER_ERROR, "", 1.0)
    assert tally.alive is None
    tally.begin(SECOND, 1.0)
    assert tally.alive is None, "what the first was sent says nothing of the second"


def test_nothing_was_tried() -> None:
    tally = Tally(0.0)
    tally.abandon(1.0)

    assert tally.outcome(FREE).attempts == ()
