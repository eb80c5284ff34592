"""The README's test with the fake, run as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.blocks import python_blocks
from tests.support.suite import ROOT


def test_the_readmes_test_passes(tmp_path: Path) -> None:
    _, with_fake = python_blocks((ROOT / "README.md").read_text())
    place = tmp_path / "test_readme.py"
    place.write_text(with_fake)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(place)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=100)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
