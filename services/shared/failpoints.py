"""Named places at which a test lets the process die, as kill -9 or a power cut would.

FLOWSTACK_FAILPOINT=quota.after_commit:3 kills the process when it comes to that place for the third time. Where the
variable is not set, a hit is one comparison.
"""

from __future__ import annotations

import os
import signal
from typing import Final

VARIABLE: Final = "FLOWSTACK_FAILPOINT"


class Failpoint:
    """The place that is armed, and how often it will still be passed."""

    def __init__(self, setting: str) -> None:
        self._name, _, count = setting.partition(":")
        self._left = int(count or 1)

    def hit(self, name: str) -> None:
        """Counts down at the armed place; at zero the process ends at once, with nothing flushed or closed."""
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


_armed: Failpoint | None = None


def arm(setting: str) -> None:
    """Arms the place that a setting names, `quota.after_commit:3`; none where it is empty."""
    global _armed  # noqa: PLW0603  # one place for a process, as the environment says
    _armed = Failpoint(setting) if setting else None


def hit(name: str) -> None:
    """Marks a place, `<service>.<where>`."""
    if _armed is not None:
        _armed.hit(name)


arm(os.environ.get(VARIABLE, ""))
