"""The tool loop of a Chat: which results are owed, and what the model is asked next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.router.domain.events import Finish, ProviderEvent, TextDelta, ToolCall
from services.router.domain.request import (
    Message,
    Part,
    Prompt,
    Role,
    TextPart,
    ToolCallPart,
    ToolChoiceMode,
    ToolResultPart,
)

RESULTS_BYTES_MAX: Final = 8 * 1024 * 1024
"""Text of all results of a session together: it is sent to the provider again in every round."""


class ToolLoopError(Exception):
    """The client broke the tool loop. The text is a sentence for it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said in one round."""

    finish: Finish
    text: str
    calls: tuple[ToolCall, ...]

    @classmethod
    def of(cls, finish: Finish, events: Iterable[ProviderEvent]) -> Answer:
        """Puts a round together from its events."""
        kept = list(events)
        text = "".join(event.text for event in kept if isinstance(event, TextDelta))
        return cls(finish, text, tuple(event for event in kept if isinstance(event, ToolCall)))


class ToolLoop:
    """Collects the results of each round, from the client that was asked for them.

    Args:
        rounds_max: How many rounds the plan allows in a session.
    """

    def __init__(self, rounds_max: int) -> None:
        self._rounds_left = rounds_max
        self._bytes_left = RESULTS_BYTES_MAX
        self._wanted: dict[str, ToolResultPart | None] = {}

    def ask(self, calls: Sequence[ToolCall]) -> tuple[str, ...]:
        """Begins a round: the ids whose results are owed now; none where there are no calls or no rounds left.

        Raises:
            ValueError: two calls have the same id. Providers refuse that as MALFORMED; one result for both would be
                none that a provider takes.
        """
        if len({call.id for call in calls}) < len(calls):
            raise ValueError("two tool calls of one round have the same id")
        if not calls or self._rounds_left <= 0:
            return ()
        self._rounds_left -= 1
        self._wanted = {call.id: None for call in calls}
        return tuple(self._wanted)

    @property
    def complete(self) -> bool:
        """True once every result of the round is there."""
        return all(result is not None for result in self._wanted.values())

    def add(self, results: Sequence[ToolResultPart] | None) -> None:
        """Takes results in, in any order; None when the client has half-closed.

        Raises:
            ToolLoopError: an id that is not owed or was answered already, too much text, or the half-close.
        """
        if results is None:
            raise ToolLoopError("The client half-closed the call while tool results were owed.")
        for result in results:
            if result.tool_call_id not in self._wanted:
                raise ToolLoopError("A tool result has an id that was not asked for in this round.")
            if self._wanted[result.tool_call_id] is not None:
                raise ToolLoopError("A tool call was answered twice.")
            self._bytes_left -= len(result.content.encode())
            if self._bytes_left < 0:
                raise ToolLoopError(f"The tool results of the session are over {RESULTS_BYTES_MAX} bytes.")
            self._wanted[result.tool_call_id] = result

    def next_prompt(self, prompt: Prompt, answer: Answer) -> Prompt:
        """What to ask next: the conversation with the model's calls and their results behind it.

        A tool that the caller forced has been called by then; forcing it again would never come to an answer.
        """
        said: list[Part] = [TextPart(answer.text)] if answer.text else []
        said += [ToolCallPart(call.id, call.name, call.arguments_json) for call in answer.calls]
        results = tuple(result for result in self._wanted.values() if result is not None)
        choice = prompt.tool_choice
        if choice.mode in (ToolChoiceMode.REQUIRED, ToolChoiceMode.TOOL):
            choice = replace(choice, mode=ToolChoiceMode.AUTO, tool_name="")
        return replace(
            prompt,
            messages=(
                *prompt.messages,
                Message(Role.ASSISTANT, tuple(said), answer.finish.native),
                Message(Role.TOOL, results),
            ),
            tool_choice=choice,
        )
