"""The bounds of a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEASE_MARGIN_SECONDS_MIN: Final = 30.0


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long and how much. Times are in seconds."""

    time_limit_s: float = 300.0
    """A session's ceiling, from before its reservation is sent."""
    lease_s: float = 330.0
    """How long quota holds the unit: the ceiling and a margin, so that no session outlives its lease."""
    first_message_s: float = 10.0
    """How long a Chat may stay open without its first message, before there is a session."""
    resolution_answer_s: float = 2.0
    """How long the last event waits for quota's answer to the commit or release."""
    tool_results_s: float = 60.0
    reader_stall_s: float = 60.0
    """How long a client may take nothing while its buffer is full."""
    buffer_events: int = 64
    """Events that may wait for the client before the provider is slowed down."""
    buffer_bytes: int = 16 * 1024
    """Text that may wait for it, in bytes."""

    def check(self) -> None:
        """Refuses a lease that could end while its session runs.

        Raises:
            ValueError: the margin is under LEASE_MARGIN_SECONDS_MIN.
        """
        if self.lease_s - self.time_limit_s < LEASE_MARGIN_SECONDS_MIN:
            raise ValueError(
                f"The lease of {self.lease_s:g} s has to be at least {LEASE_MARGIN_SECONDS_MIN:g} s longer than the "
                f"session time limit of {self.time_limit_s:g} s. Raise FLOWSTACK_LEASE_SECONDS or lower "
                "FLOWSTACK_SESSION_TIME_LIMIT_SECONDS."
            )
