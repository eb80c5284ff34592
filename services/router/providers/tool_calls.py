"""Puts tool calls together from the pieces that providers stream."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final

import msgspec

from services.router.domain.events import ToolCall
from services.router.domain.outcome import AttemptFailure
from services.router.providers.port import ProviderError

CALLS_MAX: Final = 128
ARGUMENTS_BYTES_MAX: Final = 1024 * 1024

_decode_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""Checks the values without making anything of them, so that no number is too long."""


@dataclass(slots=True)
class _Draft:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ToolCallAssembly:
    """The tool calls of one provider call, by the index that the provider gives them.

    All are given out at the end: pieces of parallel calls may come interleaved, and a call is only ever sent whole.
    """

    __slots__ = ("_drafts", "_size")

    def __init__(self) -> None:
        self._drafts: dict[int, _Draft] = {}
        self._size = 0

    def add(self, index: int | None, id_: str | None, name: str | None, arguments: str | None) -> None:
        """Takes one piece in.

        Args:
            index: Which call it belongs to; None, as some servers send, means a new one where it brings an id
                and the last one otherwise.
            id_: The call's id, in its first piece.
            name: The tool's name, in its first piece.
            arguments: More of the arguments' text.

        Raises:
            ProviderError: MALFORMED, over a limit.
        """
        if index is None:
            index = len(self._drafts) if id_ or not self._drafts else len(self._drafts) - 1
        draft = self._drafts.get(index)
        if draft is None:
            if len(self._drafts) >= CALLS_MAX:
                raise ProviderError(AttemptFailure.MALFORMED, f"The provider sent over {CALLS_MAX} tool calls.")
            draft = self._drafts[index] = _Draft()
        draft.id = draft.id or id_ or ""
        draft.name = draft.name or name or ""
        if arguments:
            self._size += len(arguments)
            if self._size > ARGUMENTS_BYTES_MAX:
                raise ProviderError(AttemptFailure.MALFORMED, "The provider sent tool arguments over the limit.")
            draft.arguments.append(arguments)

    def finished(self, *, cut: bool) -> list[ToolCall]:
        """The calls, in the order of their indexes.

        Args:
            cut: The output token limit ended the stream, so that the last call may be incomplete: it is left out
                then, and the finish reason tells why.

        Raises:
            ProviderError: MALFORMED, arguments that are no JSON object, a call without a name, or an id twice.
        """
        calls: list[ToolCall] = []
        last = max(self._drafts, default=0)
        for index, draft in sorted(self._drafts.items()):
            arguments = "".join(draft.arguments).strip() or "{}"
            if not draft.name or not is_json_object(arguments):
                if cut and index == last:
                    break
                raise ProviderError(AttemptFailure.MALFORMED, "The provider sent a tool call that is not valid JSON.")
            # A server that gives no ids still has to have its calls told apart.
            calls.append(ToolCall(draft.id or f"call_{secrets.token_hex(12)}", draft.name, arguments))
        if len({call.id for call in calls}) < len(calls):
            raise ProviderError(AttemptFailure.MALFORMED, "The provider gave two tool calls the same id.")
        return calls


def is_json_object(text: str) -> bool:
    """True when `text` is a JSON object."""
    try:
        _decode_object(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return True
