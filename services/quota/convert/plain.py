"""Commands that are seen to be valid while they are read, without the rule engine.

`plain_reserve` and `plain_commit` are stricter than the rules of the contract and know fewer cases. What they do not
vouch for goes to protovalidate, which takes 5 to 9 us a command and was the largest single cost of a batch.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from services.quota.domain.commands import LEASE_US_DEFAULT, Commit, Reserve
from services.quota.domain.model import Candidate, Outcome

_account_id = re.compile(r"acct_[0-9A-Za-z_]{1,58}", re.ASCII).fullmatch
_session_id = re.compile(r"ses_[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", re.ASCII).fullmatch

CANDIDATES_MAX: Final = 16
LABELS_MAX: Final = 16
ATTEMPTS_MAX: Final = 64
FAILURES: Final = frozenset(type_pb2.AttemptFailure.values())
FINISH_REASONS: Final = frozenset(type_pb2.FinishReason.values())
CREDENTIAL_MODES: Final = frozenset(type_pb2.CredentialMode.values()) - {type_pb2.CREDENTIAL_MODE_UNSPECIFIED}
SERVED_MODES: Final = frozenset(type_pb2.CredentialMode.values())


def plain_reserve(request: pb.ReserveSessionRequest) -> Reserve | None:
    """The command of a request that certainly satisfies every rule of the contract; None of any other."""
    account_id, session_id = request.account_id, request.session_id
    if not (_account_id(account_id) and _session_id(session_id)):
        return None
    lease_us = LEASE_US_DEFAULT
    if request.HasField("lease_duration"):
        lease = request.lease_duration
        seconds, nanos = lease.seconds, lease.nanos
        # The largest lease of whole seconds; fractions are plain below it.
        if not (1 <= seconds < 3600 and 0 <= nanos < 1_000_000_000):
            return None
        lease_us = seconds * 1_000_000 + nanos // 1000
    request_id, api_key_id = request.request_id, request.api_key_id
    if not _is_short(request_id, 128) and (request_id or request.HasField("request_id")):
        return None
    if not _is_short(api_key_id, 64) and (api_key_id or request.HasField("api_key_id")):
        return None
    labels = tuple(sorted(request.labels.items())) if request.labels else ()
    if labels and not _are_plain_labels(labels):
        return None
    candidates: list[Candidate] = []
    for asked in request.candidates:
        candidate = _candidate(asked.provider, asked.model, asked.credential_mode)
        if candidate is None:
            return None
        candidates.append(candidate)
    if not 1 <= len(candidates) <= CANDIDATES_MAX:
        return None
    return Reserve(account_id, session_id, tuple(candidates), lease_us, request_id, api_key_id, labels)


@lru_cache(maxsize=1024)
def _candidate(provider: str, model: str, credential_mode: int) -> Candidate | None:
    # Few candidates are asked for over and over.
    is_plain = _is_short(provider, 64) and _is_short(model, 256) and credential_mode in CREDENTIAL_MODES
    return Candidate(provider, model, credential_mode) if is_plain else None


def _are_plain_labels(labels: tuple[tuple[str, str], ...]) -> bool:
    return len(labels) <= LABELS_MAX and all(
        _is_short(key, 64) and value.isascii() and len(value) <= 256 for key, value in labels
    )


def plain_commit(request: pb.CommitSessionRequest) -> Commit | None:
    """The command of a request that certainly satisfies every rule of the contract; None of any other."""
    account_id, session_id = request.account_id, request.session_id
    if not (_account_id(account_id) and _session_id(session_id) and request.HasField("outcome")):
        return None
    outcome = request.outcome
    mode = outcome.served_credential_mode
    texts_are_plain = _are_short_or_empty(
        outcome.served_provider, outcome.served_model, outcome.provider_finish_reason, outcome.provider_request_id
    )
    counts_are_plain = (
        min(
            outcome.input_tokens,
            outcome.output_tokens,
            outcome.cached_input_tokens,
            outcome.cache_write_tokens,
            outcome.reasoning_tokens,
            outcome.tool_call_count,
        )
        >= 0
    )
    if not (
        texts_are_plain
        and counts_are_plain
        and mode in SERVED_MODES
        and outcome.finish_reason in FINISH_REASONS
        and (not outcome.attempts or _are_plain_attempts(outcome))
    ):
        return None
    return Commit(account_id, session_id, outcome_from_proto(outcome))


def outcome_from_proto(outcome: type_pb2.SessionOutcome) -> Outcome:
    """SessionOutcome to domain: the whole of it as bytes, so that what a newer router adds is kept too."""
    return Outcome(outcome.served_credential_mode, outcome.SerializeToString(deterministic=True))


def _are_plain_attempts(outcome: type_pb2.SessionOutcome) -> bool:
    attempts = outcome.attempts
    return len(attempts) <= ATTEMPTS_MAX and all(
        _are_short_or_empty(attempt.provider, attempt.model, "", "")
        and attempt.failure in FAILURES
        and attempt.input_tokens >= 0
        and attempt.output_tokens >= 0
        for attempt in attempts
    )


def _is_short(text: str, length_max: int) -> bool:
    # Of ASCII, characters are bytes.
    return 1 <= len(text) <= length_max and text.isascii()


def _are_short_or_empty(provider: str, model: str, finish_reason: str, request_id: str) -> bool:
    return (
        len(provider) <= 64
        and len(model) <= 256
        and len(finish_reason) <= 64
        and len(request_id) <= 256
        and provider.isascii()
        and model.isascii()
        and finish_reason.isascii()
        and request_id.isascii()
    )
