"""Session events, cursors and watermarks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flowstack_protos.quota.v1 import quota_service_pb2 as pb

from services.quota.convert.sessions import fill_session
from services.quota.convert.times import fill_time
from services.quota.domain.cursors import Position, cursor_from_position, position_from_cursor
from services.quota.domain.model import SessionEvent
from services.quota.service import PartitionPage

RESPONSE_BYTES: Final = 1024 * 1024
"""About how large a message of a response stream becomes, plus one event. A client takes 4 MiB by default."""


def position_from_proto(epoch: str, position: pb.PartitionPosition) -> Position:
    """PartitionPosition to domain.

    Raises:
        FlowStackError: INVALID_REQUEST for a cursor that is none of this store's partition.
    """
    return position_from_cursor(epoch, position.partition, position.after_cursor)


def fill_event(message: pb.SessionEvent, epoch: str, event: SessionEvent) -> None:
    """Sets `message` to an event of the store of `epoch`."""
    message.partition = event.partition
    message.cursor = cursor_from_position(epoch, Position(event.partition, event.position, event.time_us))
    message.type = event.type  # type: ignore[assignment]  # the numbers are the contract's
    fill_time(message.event_time, event.time_us)
    fill_session(message.session, event.session)


def page_to_proto(epoch: str, found: PartitionPage) -> Iterator[pb.ReadSessionEventsResponse]:
    """A page of one partition, in messages that every client takes; the last with a watermark, where it is complete."""
    response = pb.ReadSessionEventsResponse()
    size = 0
    for event in found.page.events:
        if size >= RESPONSE_BYTES:
            yield response
            response, size = pb.ReadSessionEventsResponse(), 0
        message = response.events.add()
        fill_event(message, epoch, event)
        size += message.ByteSize()
    if not found.page.has_more:
        watermark = response.watermarks.add(partition=found.partition)
        fill_time(watermark.watermark_time, found.page.watermark_us)
        if found.page.oldest_reserve_us:
            fill_time(watermark.oldest_reserve_time, found.page.oldest_reserve_us)
    yield response
