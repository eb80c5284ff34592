"""The end of an answer, in the one form that all providers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from services.router.domain.events import Finish, ToolCall
from services.router.domain.outcome import TOKENS_MAX, FinishReason, Usage
from services.router.domain.request import NativeContent
from services.router.providers.redaction import identifier
from services.shared.secret import Secret

FINISH_WORD_CHARACTERS_MAX: Final = 64


def finish_with(
    reason: FinishReason,
    word: str,
    usage: Usage,
    *,
    calls: Sequence[ToolCall],
    secrets: Sequence[Secret],
    native: NativeContent | None = None,
) -> Finish:
    """The Finish of an answer whose provider's own word for its end is `word`."""
    if calls and reason is FinishReason.STOP:
        # A forced tool ends with "stop" at some servers.
        reason = FinishReason.TOOL_CALLS
    return Finish(reason, identifier(word, FINISH_WORD_CHARACTERS_MAX, secrets), usage, native)


def count(tokens: int | None) -> int | None:
    """A token count that can be believed; None where it is unknown."""
    return tokens if tokens is not None and 0 <= tokens <= TOKENS_MAX else None


def total_input(fresh: int | None, cache_read: int | None, cache_write: int | None) -> int | None:
    """All input tokens, from a provider that counts what its cache read and wrote apart from the rest."""
    if (fresh := count(fresh)) is None:
        return None
    return min(fresh + (count(cache_read) or 0) + (count(cache_write) or 0), TOKENS_MAX)
