"""Times on the wire: microseconds since 1970 to protobuf's types and back."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

MICRO: Final = 1_000_000


def time_to_proto(time_us: int) -> Timestamp:
    """Microseconds since 1970 to Timestamp."""
    seconds, microseconds = divmod(time_us, MICRO)
    return Timestamp(seconds=seconds, nanos=microseconds * 1000)


def optional_time_to_proto(time_us: int) -> Timestamp | None:
    """Microseconds since 1970 to Timestamp; None for 0, which means unset."""
    return time_to_proto(time_us) if time_us else None


def us_from_proto(time: Timestamp) -> int:
    """Timestamp to microseconds since 1970; an unset one is 0."""
    return time.seconds * MICRO + time.nanos // 1000


def us_from_duration(message: Message, field: str) -> int | None:
    """A Duration field in microseconds, rounded up so that one above 0 stays so; None where it is unset."""
    if not message.HasField(field):
        return None
    duration: Duration = getattr(message, field)
    return duration.seconds * MICRO - (-duration.nanos // 1000)
