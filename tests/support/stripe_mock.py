"""Runs stripe-mock, Stripe's own simulator.

It checks each call against Stripe's published interface, and answers with examples.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def stripe_mock(program: str, folder: Path) -> Iterator[str]:
    """Runs it on any free port; gives its address."""
    command = [program, "-http-addr", "127.0.0.1:0", "-https-addr", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)
    assert process.stdout is not None
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if "Listening for HTTP" in line:
                yield f"http://{line.split()[-1]}"
                return
        raise AssertionError("".join(said))
    finally:
        process.terminate()
        process.communicate()
