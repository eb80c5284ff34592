"""Starts aimock, a third-party simulator of providers, and installs it at its first use."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.lock import locked

HOME = Path(__file__).parent / "aimock"
PROGRAM = HOME / "node_modules" / ".bin" / "llmock"
NODE_MAJOR_MIN = 20


@contextmanager
def aimock() -> Iterator[str]:
    """The base URL of a running simulator. Skips the test where node or npm's registry is not there; in CI it fails."""
    _install()
    command = [str(PROGRAM), "--port", "0", "--fixtures", str(HOME / "fixtures"), "--validate-on-load", "--strict"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield f"{_address(process)}/v1"
        finally:
            process.terminate()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "listening on" in line:
            return line.split("listening on")[1].strip()
    raise AssertionError(f"aimock did not start: {''.join(said)}")


def _install() -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        _unavailable("node and npm are not installed")
    version = subprocess.run([str(node), "--version"], check=True, capture_output=True, text=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < NODE_MAJOR_MIN:
        _unavailable(f"node is {version}, and aimock needs {NODE_MAJOR_MIN} or newer")
    with locked(HOME / ".lock"):
        if not PROGRAM.exists():
            _run_npm(str(npm))


def _run_npm(npm: str) -> None:
    result = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=HOME,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if result.returncode != 0:
        _unavailable(f"npm could not install aimock: {result.stderr[-500:]}")


def _unavailable(why: str) -> None:
    message = f"The simulator aimock cannot run: {why}."
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
