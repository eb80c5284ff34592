"""Programs of others that tests need: the installed one, or one built once where Go is.

Building takes a minute or two on a machine with nothing cached, so the test run starts it in the background, as
`python -m tests.support.go_programs <name>`, and asks for it last.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.lock import locked

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / ".venv" / "go"
BUILD_SECONDS: Final = 500


@dataclass(frozen=True)
class GoProgram:
    """A program that `go install` can make."""

    name: str
    package: str

    @property
    def built(self) -> Path:
        """Where it is, once it is built."""
        return FOLDER / self.name

    def start_building(self) -> None:
        """Builds it in the background, where it has to be built and can be."""
        if shutil.which(self.name) is None and not self.built.exists() and shutil.which("go") is not None:
            command = [sys.executable, "-m", "tests.support.go_programs", self.name]
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def find(self) -> str | None:
        """Its path; None where it is not installed and there is no Go. Waits for a build that runs."""
        installed = shutil.which(self.name)
        if installed:
            return installed
        go = shutil.which("go")
        if go is None:
            return None
        with locked(FOLDER / f".lock-{self.name}"):
            if not self.built.exists():
                self._build(go)
        return str(self.built)

    def _build(self, go: str) -> None:
        built = subprocess.run(
            [go, "install", self.package],
            env=os.environ | {"GOBIN": str(FOLDER), "GOFLAGS": "-modcacherw"},
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
        assert built.returncode == 0, built.stderr


GRPCURL: Final = GoProgram("grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4")
STRIPE_MOCK: Final = GoProgram("stripe-mock", "github.com/stripe/stripe-mock@v0.203.0")
PROGRAMS: Final = {program.name: program for program in (GRPCURL, STRIPE_MOCK)}


if __name__ == "__main__":
    PROGRAMS[sys.argv[1]].find()
