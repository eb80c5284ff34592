"""A quick look at commands: most are plain, and need no rule engine to be seen to be valid.

`is_plain` is stricter than the rules of the contract and knows fewer cases; what it does not vouch for goes to
protovalidate, which takes 5 to 9 us a command and was the largest single cost of a batch.
"""

from __future__ import annotations

import re
from typing import Final

from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

_account_id = re.compile(r"acct_[0-9A-Za-z_]{1,58}", re.ASCII).fullmatch
_session_id = re.compile(r"ses_[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", re.ASCII).fullmatch

CANDIDATES_MAX: Final = 16
LABELS_MAX: Final = 16
ATTEMPTS_MAX: Final = 64
FAILURES: Final = frozenset(type_pb2.AttemptFailure.values())
FINISH_REASONS: Final = frozenset(type_pb2.FinishReason.values())
CREDENTIAL_MODES: Final = frozenset(type_pb2.CredentialMode.values()) - {type_pb2.CREDENTIAL_MODE_UNSPECIFIED}
SERVED_MODES: Final = frozenset(type_pb2.CredentialMode.values())


def is_plain(command: pb.SessionCommand) -> bool:
    """True only for a command that certainly satisfies every rule of the contract."""
    kind = command.WhichOneof("command")
    if kind == "reserve":
        return is_plain_reserve(command.reserve)
    if kind == "commit":
        return is_plain_commit(command.commit)
    return False


def is_plain_reserve(request: pb.ReserveSessionRequest) -> bool:
    """True only for a reserve that certainly satisfies every rule of the contract."""
    if not (_account_id(request.account_id) and _session_id(request.session_id)):
        return False
    if request.HasField("lease_duration"):
        lease = request.lease_duration
        # The largest lease of whole seconds; fractions are plain below it.
        if not (1 <= lease.seconds < 3600 and 0 <= lease.nanos < 1_000_000_000):
            return False
    if request.HasField("request_id") and not _is_short(request.request_id, 128):
        return False
    if request.HasField("api_key_id") and not _is_short(request.api_key_id, 64):
        return False
    if request.labels and not _are_plain_labels(request.labels):
        return False
    candidates = request.candidates
    return 1 <= len(candidates) <= CANDIDATES_MAX and all(
        _is_short(candidate.provider, 64)
        and _is_short(candidate.model, 256)
        and candidate.credential_mode in CREDENTIAL_MODES
        for candidate in candidates
    )


def _are_plain_labels(labels: object) -> bool:
    pairs = labels.items()  # type: ignore[attr-defined]  # a protobuf map, which has no public type
    return len(pairs) <= LABELS_MAX and all(
        _is_short(key, 64) and value.isascii() and len(value) <= 256 for key, value in pairs
    )


def is_plain_commit(request: pb.CommitSessionRequest) -> bool:
    """True only for a commit that certainly satisfies every rule of the contract."""
    if not (_account_id(request.account_id) and _session_id(request.session_id) and request.HasField("outcome")):
        return False
    outcome = request.outcome
    return (
        outcome.finish_reason in FINISH_REASONS
        and outcome.served_credential_mode in SERVED_MODES
        and (not outcome.attempts or _are_plain_attempts(outcome))
        and outcome.input_tokens >= 0
        and outcome.output_tokens >= 0
        and outcome.cached_input_tokens >= 0
        and outcome.cache_write_tokens >= 0
        and outcome.reasoning_tokens >= 0
        and outcome.tool_call_count >= 0
        and _is_short_or_empty(outcome.served_provider, 64)
        and _is_short_or_empty(outcome.served_model, 256)
        and _is_short_or_empty(outcome.provider_finish_reason, 64)
        and _is_short_or_empty(outcome.provider_request_id, 256)
    )


def _are_plain_attempts(outcome: type_pb2.SessionOutcome) -> bool:
    attempts = outcome.attempts
    return len(attempts) <= ATTEMPTS_MAX and all(
        _is_short_or_empty(attempt.provider, 64)
        and _is_short_or_empty(attempt.model, 256)
        and attempt.failure in FAILURES
        and attempt.input_tokens >= 0
        and attempt.output_tokens >= 0
        for attempt in attempts
    )


def _is_short(text: str, length_max: int) -> bool:
    # Of ASCII, characters are bytes.
    return 1 <= len(text) <= length_max and text.isascii()


def _is_short_or_empty(text: str, length_max: int) -> bool:
    return len(text) <= length_max and text.isascii()
