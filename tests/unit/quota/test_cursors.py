"""Cursors: exact for the store that gave them, refused by any other."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.quota.domain.cursors import Position, cursor_from_position, position_from_cursor
from services.shared.errors import FlowStackError, Reason

EPOCH = "0123456789abcdef"


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def refusal(cursor: str, partition: int = 3, epoch: str = EPOCH) -> FlowStackError:
    with pytest.raises(FlowStackError) as caught:
        position_from_cursor(epoch, partition, cursor)
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert [v.field for v in caught.value.violations] == ["positions.after_cursor"]
    return caught.value


@given(st.integers(0, 63), st.integers(1, 2**63 - 1), st.integers(0, 2**62))
def test_round_trip(partition: int, position: int, time_us: int) -> None:
    place = Position(partition, position, time_us)
    cursor = cursor_from_position(EPOCH, place)
    assert position_from_cursor(EPOCH, partition, cursor) == place
    assert len(cursor) <= 128, "the contract allows 128 bytes"


def test_the_empty_cursor_is_the_beginning() -> None:
    assert position_from_cursor(EPOCH, 7, "") == Position(7, 0, 0)


def test_another_partitions_cursor_is_refused() -> None:
    refusal(cursor_from_position(EPOCH, Position(4, 1, 9)), partition=3)


def test_another_stores_cursor_is_refused_and_names_this_store() -> None:
    error = refusal(cursor_from_position("fedcba9876543210", Position(3, 1, 9)))
    assert error.metadata == {"store_epoch": EPOCH}


@pytest.mark.parametrize(
    "cursor",
    [
        "!",
        "garbage",
        "\u00e9",
        "AAAA",
        "gICA",
        encoded("1:0123456789abcdef:3:5"),
        encoded("1:0123456789abcdef:3:5:6:7"),
        encoded("2:0123456789abcdef:3:5:6"),
        encoded("1:0123456789abcdef:3:0:6"),
        encoded("1:0123456789abcdef:3:-5:6"),
        encoded("1:0123456789abcdef:3:five:6"),
        encoded("1:0123456789abcdef:3:99999999999999999999:6"),
        encoded("1:0123456789abcdef:3:5:99999999999999999999"),
        encoded("1:0123456789abcdef:3:5:-1"),
    ],
)
def test_garbage_is_refused(cursor: str) -> None:
    refusal(cursor)


@given(st.text(max_size=128))
def test_any_text_is_a_position_or_refused(text: str) -> None:
    if text:
        refusal(text)
