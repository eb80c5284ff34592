"""The program stripe-mock, Stripe's own simulator: the installed one, or one built once where Go is.

It checks each call against Stripe's published interface, and answers with examples.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.lock import locked

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "github.com/stripe/stripe-mock@v0.203.0"
FOLDER = ROOT / ".venv" / "go"
PROGRAM = FOLDER / "stripe-mock"
BUILD_SECONDS = 500


def start_building() -> None:
    """Builds it in the background, where it has to be built and can be."""
    if shutil.which("stripe-mock") is None and not PROGRAM.exists() and shutil.which("go") is not None:
        command = [sys.executable, "-m", "tests.support.stripe_mock"]
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def find_stripe_mock() -> str | None:
    """The program's path; None where it is not installed and there is no Go. Waits for a build that runs."""
    installed = shutil.which("stripe-mock")
    if installed:
        return installed
    go = shutil.which("go")
    if go is None:
        return None
    with locked(FOLDER / ".lock-stripe-mock"):
        if not PROGRAM.exists():
            environment = os.environ | {"GOBIN": str(FOLDER), "GOFLAGS": "-modcacherw"}
            built = subprocess.run(
                [go, "install", PACKAGE],
                env=environment,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
                check=False,
            )
            assert built.returncode == 0, built.stderr
    return str(PROGRAM)


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


if __name__ == "__main__":
    find_stripe_mock()
