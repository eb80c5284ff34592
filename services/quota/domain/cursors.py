"""Cursors of session events: opaque to readers, exact to the store."""

from __future__ import annotations

import base64
import binascii
from typing import Final, NamedTuple

from services.shared.errors import FieldViolation, FlowStackError, Reason, invalid_request

FIELD: Final = "positions.after_cursor"
_FORM: Final = "1"
"""The form's version, first in every cursor."""
_INTEGER_MAX: Final = 2**63 - 1
"""What stores can compare with; a cursor that says more is none of ours."""


class Position(NamedTuple):
    """A place among the events of a partition: of its last event that a reader has; 0 before the first."""

    partition: int
    position: int
    time_us: int
    """The time of the event there, so that the place cannot be mistaken for one in another history."""


def cursor_from_position(epoch: str, position: Position) -> str:
    """The cursor that names `position` in the store of `epoch`."""
    text = f"{_FORM}:{epoch}:{position.partition}:{position.position}:{position.time_us}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def position_from_cursor(epoch: str, partition: int, cursor: str) -> Position:
    """The position that `cursor` names; an empty one is the beginning.

    Raises:
        FlowStackError: INVALID_REQUEST for a cursor that is malformed, of another partition or of another epoch.
    """
    if not cursor:
        return Position(partition, 0, 0)
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        form, of_epoch, of_partition, position, time_us = text.split(":")
        found = Position(int(of_partition), int(position), int(time_us))
    except (binascii.Error, ValueError):
        raise invalid_request(FIELD, "is not a cursor of this service") from None
    in_range = 1 <= found.position <= _INTEGER_MAX and 0 <= found.time_us <= _INTEGER_MAX
    if form != _FORM or found.partition != partition or not in_range:
        raise invalid_request(FIELD, "is not a cursor of this partition")
    if of_epoch != epoch:
        rule = "belongs to another store: this one was restored or replaced"
        raise FlowStackError(
            Reason.INVALID_REQUEST,
            f"The cursor {rule}. Compare both histories, then read from the beginning.",
            metadata={"store_epoch": epoch},
            violations=(FieldViolation(FIELD, rule),),
        )
    return found
