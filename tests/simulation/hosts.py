"""What every simulated host is made of: its clock and what it shares with the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.shared.secret import Secret
from tests.simulation.oracle import Oracle
from tests.support.simulation_loop import SimulatedLoop
from tests.support.simulation_net import Network

TOKEN: Final = Secret("token-between-services")
METADATA: Final = (("authorization", f"Bearer {TOKEN.reveal()}"),)
HOLD_US: Final = 8_000_000
LEASE_S: Final = 24.0
TIME_LIMIT_S: Final = 12.0


class HostClock:
    """A host's clock on virtual time. Its wall clock can be set; its monotonic clock cannot."""

    def __init__(self, loop: SimulatedLoop, start_us: int, skew_us: int = 0) -> None:
        self._loop = loop
        self._start_us = start_us
        self.skew_us = skew_us

    def now_us(self) -> int:
        """Wall time in microseconds since 1970."""
        return self._start_us + round(self._loop.time() * 1_000_000) + self.skew_us

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        return 1_000 + self._loop.time()


@dataclass
class Surroundings:
    """What every host has to do with."""

    seed: int
    loop: SimulatedLoop
    network: Network
    oracle: Oracle
    folder: Path
    start_us: int
    """Wall time at the beginning."""
