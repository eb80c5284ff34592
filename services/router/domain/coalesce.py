"""Makes one delta of several that are there already. Nothing ever waits to be merged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from services.router.domain.events import Finish, ReasoningDelta, SessionEvent, TextDelta, ToolCall

DELTA_CHARACTERS_MAX: Final = 64 * 1024
"""The longest text of one message, at most 256 KiB of UTF-8. Clients of gRPC take messages of 4 MiB by default, and a
provider's event may be larger: a longer text goes out in parts."""


def coalesced(events: Sequence[SessionEvent]) -> Sequence[SessionEvent]:
    """The same output in as few events as its order allows.

    Neighbours that are both text, or both reasoning, become one; everything else stays as it is. A message costs
    gRPC some forty microseconds whatever is in it, so a reader who is behind, by one write, is caught up with at once.
    """
    if len(events) == 1 and size_bytes(events) <= DELTA_CHARACTERS_MAX:
        return events
    merged: list[SessionEvent] = []
    run: list[str] = []
    kind: type[TextDelta] | type[ReasoningDelta] | None = None
    for event in events:
        event_kind = type(event)
        if event_kind is kind:
            run.append(event.text)  # type: ignore[union-attr]  # of a kind that has it
            continue
        if kind is not None:
            merged.extend(_deltas(kind, run))
            kind, run = None, []
        if event_kind is TextDelta or event_kind is ReasoningDelta:
            kind, run = event_kind, [event.text]  # type: ignore[union-attr]  # of a kind that has it
        else:
            merged.append(event)
    if kind is not None:
        merged.extend(_deltas(kind, run))
    return merged


def size_bytes(events: Iterable[SessionEvent | Finish]) -> int:
    """About how much memory the output in `events` takes, in bytes."""
    total = 0
    for event in events:
        kind = type(event)
        if kind is TextDelta or kind is ReasoningDelta:
            total += len(event.text)  # type: ignore[union-attr]  # of a kind that has it
        elif kind is ToolCall:
            total += len(event.arguments_json)  # type: ignore[union-attr]  # as above
    return total


def _deltas(kind: type[TextDelta] | type[ReasoningDelta], run: list[str]) -> Iterator[TextDelta | ReasoningDelta]:
    text = run[0] if len(run) == 1 else "".join(run)
    if len(text) <= DELTA_CHARACTERS_MAX:
        yield kind(text)
        return
    for start in range(0, len(text), DELTA_CHARACTERS_MAX):
        yield kind(text[start : start + DELTA_CHARACTERS_MAX])
