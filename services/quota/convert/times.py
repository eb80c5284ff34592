"""Timestamps."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from services.shared.errors import invalid_request

YEAR_9000_US: Final = 221_845_392_000 * 1_000_000
"""The first moment of the year 9000, in microseconds since 1970: later periods no calendar could give."""


def fill_time(message: Timestamp, time_us: int) -> None:
    """Sets `message` to microseconds since 1970."""
    seconds, microseconds = divmod(time_us, 1_000_000)
    message.seconds = seconds
    message.nanos = microseconds * 1000


def time_to_proto(time_us: int) -> Timestamp:
    """Microseconds since 1970 to Timestamp."""
    message = Timestamp()
    fill_time(message, time_us)
    return message


def optional_time(time_us: int) -> Timestamp | None:
    """Microseconds since 1970 to Timestamp; None for 0, which stands for unset."""
    return time_to_proto(time_us) if time_us else None


def us_from_proto(time: Timestamp, field: str) -> int:
    """Timestamp to microseconds since 1970; 0 where unset.

    Raises:
        FlowStackError: INVALID_REQUEST for a time before 1970 or after 9000.
    """
    time_us = time.seconds * 1_000_000 + time.nanos // 1000
    if not 0 <= time_us < YEAR_9000_US or not 0 <= time.nanos < 1_000_000_000:
        raise invalid_request(field, "must be a time between 1970 and 9000")
    return time_us
