"""What an HTTP status other than 200 means, and what its headers say, for every provider."""

from __future__ import annotations

import email.utils
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from services.router.domain.outcome import AttemptFailure
from services.router.providers.port import ProviderError
from services.router.providers.redaction import filtered, identifier
from services.shared.secret import Secret

RETRY_AFTER_SECONDS_MAX: Final = 3600.0
REQUEST_ID_CHARACTERS_MAX: Final = 256

_WORTH_WAITING: Final = (AttemptFailure.RATE_LIMITED, AttemptFailure.PROVIDER_ERROR)


def refused(
    failure: AttemptFailure, message: str, headers: Mapping[str, str], request_id: str, secrets: Sequence[Secret]
) -> ProviderError:
    """The error of a call that the provider refused. `message` is not filtered yet."""
    retry_after = retry_after_of(headers) if failure in _WORTH_WAITING else None
    return ProviderError(failure, filtered(message, secrets), retry_after=retry_after, request_id=request_id)


def failure_of_status(status: int) -> AttemptFailure:
    """The failure that an HTTP status means where the provider says nothing more exact."""
    match status:
        case 401 | 402 | 403:
            # 402 is about the money of whoever the key belongs to, as 401 and 403 are about the key.
            return AttemptFailure.CREDENTIALS_REFUSED
        case 429:
            return AttemptFailure.RATE_LIMITED
        case 408 | 409 | 424:
            return AttemptFailure.PROVIDER_ERROR
        case _ if 400 <= status < 500:
            return AttemptFailure.REQUEST_REJECTED
        case _:
            return AttemptFailure.PROVIDER_ERROR


def request_id_of(headers: Mapping[str, str], name: str, secrets: Sequence[Secret]) -> str:
    """The provider's id of the call from the header `name`; empty where there is none, or none that may be told."""
    return identifier(headers.get(name, ""), REQUEST_ID_CHARACTERS_MAX, secrets)


def retry_after_of(headers: Mapping[str, str]) -> timedelta | None:
    """How long to wait, from `retry-after-ms` or Retry-After (RFC 9110, section 10.2.3: seconds or a date)."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        else:
            seconds = _seconds(headers.get("retry-after", ""))
        return timedelta(seconds=min(max(seconds, 0.0), RETRY_AFTER_SECONDS_MAX))
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        then = email.utils.parsedate_to_datetime(text)
        return (then - datetime.now(UTC)).total_seconds()
