"""Claude's thinking, on Anthropic and on Bedrock alike: how it is asked for, and how it is handed back.

Where a model has called tools, its provider wants the reasoning that led to the calls back unchanged, signature
included, together with their results (platform.claude.com/docs/en/build-with-claude/extended-thinking, "Preserving
thinking blocks"; docs.aws.amazon.com/bedrock, ReasoningTextBlock). So the whole answer is kept as its blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import msgspec

from services.router.domain.events import ToolCall
from services.router.domain.outcome import AttemptFailure
from services.router.domain.request import NativeContent, ReasoningEffort
from services.router.providers.port import ProviderError
from services.router.providers.turns import BUDGET_TOKENS_MIN

BLOCKS_MAX: Final = 1024
SIGNATURE_CHARACTERS_MAX: Final = 4 * 1024 * 1024
"""Signatures and encrypted reasoning of one answer together: a bound on memory."""

_BUDGET_TOKENS: Final = {
    ReasoningEffort.MINIMAL: BUDGET_TOKENS_MIN,
    ReasoningEffort.LOW: 4_096,
    ReasoningEffort.MEDIUM: 8_192,
    ReasoningEffort.HIGH: 16_384,
}
"""What an effort comes to where the model takes a number of tokens."""

_ANSWER_TOKENS_MIN: Final = 1_024
"""What is left for the answer itself where the output limit allows it."""

EFFORTS: Final = {
    ReasoningEffort.MINIMAL: "low",
    ReasoningEffort.LOW: "low",
    ReasoningEffort.MEDIUM: "medium",
    ReasoningEffort.HIGH: "high",
}
"""Claude's words; it has none under low, which is as little as it allows."""


def budget_tokens(effort: ReasoningEffort, output_limit: int) -> int:
    """How many tokens to think with: under `output_limit`, of which they are a part.

    Raises:
        ProviderError: REQUEST_REJECTED, the plan's cap leaves no room. A caller's own limit is checked beforehand.
    """
    if output_limit <= BUDGET_TOKENS_MIN:
        raise ProviderError(
            AttemptFailure.REQUEST_REJECTED, f"This model needs over {BUDGET_TOKENS_MIN} output tokens to reason."
        )
    return max(BUDGET_TOKENS_MIN, min(_BUDGET_TOKENS[effort], output_limit - _ANSWER_TOKENS_MIN))


class Kind(Enum):
    """What a block of an answer is."""

    TEXT = "text"
    THINKING = "thinking"
    REDACTED = "redacted"
    TOOL = "tool"


@dataclass(slots=True)
class Block:
    """One block of an answer, as it grows."""

    kind: Kind
    tool_call_id: str = ""
    pieces: list[str] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What was said in it."""
        return "".join(self.pieces)

    @property
    def signature(self) -> str:
        """The signature of what was said, or what was encrypted instead of said."""
        return "".join(self.signed)


class AnswerBlocks:
    """The blocks of one answer, by the index that the provider gives them."""

    __slots__ = ("_blocks", "_left", "_thinks")

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}
        self._left = SIGNATURE_CHARACTERS_MAX
        self._thinks = False

    def block(self, index: int, kind: Kind) -> Block:
        """The block at `index`, new where there is none yet.

        Raises:
            ProviderError: MALFORMED, over a limit.
        """
        found = self._blocks.get(index)
        if found is None:
            if len(self._blocks) >= BLOCKS_MAX:
                raise ProviderError(AttemptFailure.MALFORMED, f"The provider sent over {BLOCKS_MAX} content blocks.")
            found = self._blocks[index] = Block(kind)
            self._thinks = self._thinks or kind in (Kind.THINKING, Kind.REDACTED)
        return found

    def sign(self, index: int, signature: str) -> None:
        """More of a thinking block's signature.

        Raises:
            ProviderError: MALFORMED, over a limit.
        """
        self.take(signature)
        self.block(index, Kind.THINKING).signed.append(signature)

    def take(self, text: str) -> None:
        """Counts what is not output, and so not counted as such.

        Raises:
            ProviderError: MALFORMED, over a limit.
        """
        self._left -= len(text)
        if self._left < 0:
            raise ProviderError(AttemptFailure.MALFORMED, "The provider sent signatures over the limit.")

    def native(
        self, format_: str, calls: Sequence[ToolCall], wire: Callable[[Block, msgspec.Raw | None], dict[str, Any]]
    ) -> NativeContent | None:
        """The answer in the provider's own words; None where it did not reason, or nothing is to follow.

        Args:
            format_: The name of the format.
            calls: The tool calls that were whole; a block of another one is left out.
            wire: Makes the format's form of a block, given a tool call's arguments.
        """
        if not (self._thinks and calls):
            return None
        arguments = {call.id: msgspec.Raw(call.arguments_json.encode()) for call in calls}
        content = [
            wire(block, arguments.get(block.tool_call_id))
            for _, block in sorted(self._blocks.items())
            if (block.kind is not Kind.TOOL or block.tool_call_id in arguments)
            and (block.kind is not Kind.TEXT or block.pieces)
        ]
        return NativeContent(format_, msgspec.json.encode(content))
