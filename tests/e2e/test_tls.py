"""All services with certificates: the demonstration, and the commands that it prints."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_operation import start
from tests.grpc.shared.certificates import Authority
from tests.support.suite import ROOT, suite_environment


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    authority = Authority(tmp_path_factory.mktemp("certificates"), "authority of ours")
    made = authority.issue("flowstack", "DNS:localhost", "IP:127.0.0.1")
    return {
        "FLOWSTACK_TLS_CERT_FILE": str(made.certificate),
        "FLOWSTACK_TLS_KEY_FILE": str(made.key),
        "FLOWSTACK_TLS_CLIENT_CA_FILE": str(authority.file),
    }


async def test_the_demonstration_runs_over_tls(tmp_path: Path, certificates: dict[str, str]) -> None:
    result = await start(tmp_path, "--demo", "--once", **certificates)
    assert result.returncode == 0, result.stderr
    assert "ended as COMMITTED" in result.stdout
    assert "-plaintext" not in result.stdout


async def test_the_printed_commands_work_over_tls(tmp_path: Path, certificates: dict[str, str], grpcurl: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services", "--demo",
        cwd=ROOT, env=suite_environment(tmp_path, certificates), stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        await _paste(process, grpcurl)
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0


async def _paste(process: asyncio.subprocess.Process, grpcurl: str) -> None:
    assert process.stdout is not None
    printed = (await process.stdout.readuntil(b"Serving;")).decode()
    commands = re.findall(r"^grpcurl (?:.*\\\n)*.*$", printed, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", command.replace("grpcurl", grpcurl, 1)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
