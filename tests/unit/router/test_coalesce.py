from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from services.router.domain.coalesce import DELTA_CHARACTERS_MAX, coalesced, size_bytes
from services.router.domain.events import ReasoningDelta, SessionEvent, TextDelta, ToolCall, ToolResultsWanted

T, R = TextDelta, ReasoningDelta
CALL = ToolCall("call_1", "look", "{}")
WANTED = ToolResultsWanted(("call_1",))


def said(events: Sequence[SessionEvent]) -> list[object]:
    """Everything in order, letter by letter: what must not change."""
    letters: list[object] = []
    for event in events:
        letters += [(type(event), letter) for letter in event.text] if isinstance(event, T | R) else [event]
    return letters


@given(st.lists(st.one_of(st.builds(T, st.text()), st.builds(R, st.text()), st.sampled_from([CALL, WANTED]))))
def test_nothing_is_lost_or_moved_and_no_two_neighbours_are_left(events: list[SessionEvent]) -> None:
    merged = coalesced(events)

    assert said(merged) == said(events)
    kinds = [type(event) for event in merged]
    assert not any(a is b and a in (T, R) for a, b in itertools.pairwise(kinds))
    assert size_bytes(merged) == size_bytes(events)


def test_neighbours_of_one_kind_become_one() -> None:
    events = [R("a"), R("b"), T("c"), CALL, T("d"), T("e"), WANTED]
    assert coalesced(events) == [R("ab"), T("c"), CALL, T("de"), WANTED]
    assert coalesced([CALL]) == [CALL]
    assert coalesced([]) == []


def test_a_text_that_no_message_should_hold_goes_out_in_parts() -> None:
    text = "ä" * (2 * DELTA_CHARACTERS_MAX + 1)
    for events in ([T(text)], [T(text[:10]), T(text[10:])]):
        merged = coalesced(events)
        assert said(merged) == said([T(text)])
        assert max(len(event.text) for event in merged if isinstance(event, T)) == DELTA_CHARACTERS_MAX
        assert len(merged) == 3
