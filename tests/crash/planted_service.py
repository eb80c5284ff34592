"""Runs a service with a planted defect: `python -m tests.crash.planted_service <defect> <service>`."""

from __future__ import annotations

import runpy
import sys

from tests.support.planted import planted

if __name__ == "__main__":
    _, defect, name = sys.argv
    with planted(defect):
        runpy.run_module(f"services.{name}", run_name="__main__")
