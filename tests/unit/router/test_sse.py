"""The server-sent events parser, wherever its input is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.providers import sse
from services.router.providers.sse import SseOverflowError, SseParser


def parsed(*chunks: bytes) -> list[bytes]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: one\n\ndata: two\n\n", [b"one", b"two"]),
        (b"data:one\n\n", [b"one"]),
        (b"data:  one\n\n", [b" one"]),
        (b"data: one\r\n\r\ndata: two\r\n\r\n", [b"one", b"two"]),
        (b"data: one\r\rdata: two\r\r", [b"one", b"two"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\ndata\n\n", [b"\n"]),
        (b"event: error\ndata: x\n\ndata: y\n\n", [b"x", b"y"]),
        (b"event: lonely\n\ndata: y\n\n", [b"y"]),
        (b": comment\n\n:\n\ndata: x\n\n", [b"x"]),
        (b"id: 7\nretry: 10\ndata: x\nunknown: y\n\n", [b"x"]),
        (b"\xef\xbb\xbfdata: x\n\n", [b"x"]),
        (b"\n\n\n", []),
        (b"data: cut off", []),
        (b"data: cut off\n", []),
        ("data: ü€😀\n\n".encode(), ["ü€😀".encode()]),
    ],
)
def test_a_stream_means_the_same_in_one_piece_and_byte_by_byte(stream: bytes, events: list[bytes]) -> None:
    assert parsed(stream) == events
    assert parsed(*(stream[i : i + 1] for i in range(len(stream)))) == events


@given(
    st.lists(st.text(alphabet="aü😀 :", max_size=8), max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([(), (": ping",), ("event: x",), ("data: a", "id: 1")]),
    st.lists(st.integers(min_value=0, max_value=200), max_size=8),
)
def test_no_cut_changes_what_is_read(texts: list[str], end: str, before: tuple[str, ...], cuts: list[int]) -> None:
    stream = "".join(end.join((*before, f"data: {text}", "", "")) for text in texts).encode()
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[left:right] for left, right in itertools.pairwise(edges)]

    first = "a\n" if before and before[0].startswith("data") else ""
    assert parsed(*pieces) == [f"{first}{text}".encode() for text in texts]


def test_an_event_of_a_megabyte_in_small_reads() -> None:
    text = b"x" * 1_000_000
    stream = b"data: " + text + b"\n\n"
    assert parsed(*(stream[i : i + 1000] for i in range(0, len(stream), 1000))) == [text]


@pytest.mark.parametrize("line", [b"data: " + b"x" * 100, b"data: xxxxxxxxxx\n" * 10])
def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 64)
    with pytest.raises(SseOverflowError):
        parsed(line)
