"""The figures of a run, for tables: one JSON object a line in the file that FLOWSTACK_FIGURES names."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def record(name: str, **values: float | str) -> None:
    """Adds a line, and shows it where output is shown."""
    line = json.dumps({"name": name, "time": round(time.time()), **values})
    sys.stdout.write(line + "\n")
    path = os.environ.get("FLOWSTACK_FIGURES")
    if path:
        with Path(path).open("a") as file:
            file.write(line + "\n")


def size_of_long_run(variable: str, default: int) -> int:
    """How much a long test does: as the environment says, else the whole."""
    return int(os.environ.get(variable, default))
