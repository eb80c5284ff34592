"""Starts MiniStack, a third-party simulator of AWS, and installs it at its first use.

It lives in a virtual environment of its own, because it pins another botocore than the project's. What its models say
comes from aimock, through its proxy.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.lock import locked

HOME = Path(__file__).parent / "ministack"
VENV = HOME / ".venv"
PROGRAM = VENV / "bin" / "ministack"
READY = VENV / ".ready"
LOCK_FILE = HOME / "requirements.lock"
"""Made by `uv pip compile --universal --generate-hashes --python-version 3.11 requirements.in`."""

INSTALL_SECONDS_MAX = 100
START_SECONDS_MAX = 20


@contextmanager
def ministack(proxy_url: str) -> Iterator[str]:
    """The URL of a running simulator whose models answer as the chat completions at `proxy_url` do.

    Skips the test where PyPI is not there; in CI it fails.
    """
    _install()
    port = _free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(VENV),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "bedrock-runtime,bedrock",
        "MINISTACK_BEDROCK_PROXY_URL": proxy_url,
    }
    with subprocess.Popen(
        [str(PROGRAM)], cwd=VENV, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, url)
            yield url
        finally:
            process.terminate()


def _free_port() -> int:
    # It cannot choose one by itself.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/_ministack/health", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"MiniStack did not start: {process.poll()}")


def _install() -> None:
    with locked(HOME / ".lock"):
        if READY.exists() and READY.read_text() == LOCK_FILE.read_text():
            return
        shutil.rmtree(VENV, ignore_errors=True)
        _run([sys.executable, "-m", "venv", "--without-pip", str(VENV)])
        python = str(VENV / "bin" / "python")
        uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, "--require-hashes"]
        _run([*uv, "-r", str(LOCK_FILE)])
        READY.write_text(LOCK_FILE.read_text())


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False)
    if result.returncode != 0:
        message = f"The simulator MiniStack cannot run: {result.stderr[-500:]}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
