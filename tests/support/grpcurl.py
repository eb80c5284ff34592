"""The program grpcurl: the installed one, or one built once where Go is.

Building takes a minute or two on a machine with nothing cached, so the test run starts it in the background, as
`python -m tests.support.grpcurl`, and asks for it last.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.lock import locked

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"
FOLDER = ROOT / ".venv" / "go"
PROGRAM = FOLDER / "grpcurl"
BUILD_SECONDS = 500


def is_needed() -> bool:
    """Whether it has to be built, and can be."""
    return shutil.which("grpcurl") is None and not PROGRAM.exists() and shutil.which("go") is not None


def start_building() -> None:
    """Builds it in the background, where that is needed."""
    if is_needed():
        command = [sys.executable, "-m", "tests.support.grpcurl"]
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def find_grpcurl() -> str | None:
    """The program's path; None where it is not installed and there is no Go. Waits for a build that runs."""
    installed = shutil.which("grpcurl")
    if installed:
        return installed
    go = shutil.which("go")
    if go is None:
        return None
    with locked(FOLDER / ".lock"):
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


if __name__ == "__main__":
    find_grpcurl()
