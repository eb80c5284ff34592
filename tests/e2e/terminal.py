"""The command line, run as `flowstack` is, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flowstack.cli.app import run
from tests.support.suite import Suite


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """What it said on standard error, as JSON."""
        return json.loads(self.err)["error"]


class Screen(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass
class Terminal:
    """A shell of somebody who has these variables set."""

    variables: dict[str, str]

    async def run(self, *arguments: str, stdin: str | bytes = "", columns: int | None = None) -> Ended:
        """Runs `flowstack` with these arguments: into a pipe, or on a terminal of so many columns."""
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        return await asyncio.to_thread(self._run, list(arguments), data, columns)

    async def process(self, *arguments: str | bytes, shell: str = '"$@"', **variables: str) -> Ended:
        """Runs it as a process of its own, within a line of bash where it stands as `"$@"`."""
        environment = self.variables | {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)} | variables
        command = ["bash", "-c", shell, "bash", sys.executable, "-m", "flowstack", *arguments]
        ended = await asyncio.to_thread(
            subprocess.run, command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=100
        )
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    async def json(self, *arguments: str) -> Any:
        """What a command that ends well prints with --json."""
        ended = await self.run("--json", *arguments)
        assert ended.code == 0, ended.err
        return ended.json

    def _run(self, arguments: list[str], stdin: bytes, columns: int | None) -> Ended:
        out, err = io.StringIO() if columns is None else Screen(), io.StringIO()
        with (
            patch.dict("os.environ", self.variables | {"COLUMNS": str(columns or 80)}),
            patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin))),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                run(arguments)
            except SystemExit as end:
                code = end.code
        assert isinstance(code, int)
        return Ended(code, out.getvalue(), err.getvalue())


def addresses(suite: Suite) -> dict[str, str]:
    """The variables that say where the services are."""
    return {
        "FLOWSTACK_ROUTER_ENDPOINT": suite.settings.router_address,
        "FLOWSTACK_BILLING_ENDPOINT": suite.settings.billing_address,
        "FLOWSTACK_VAULT_ENDPOINT": suite.settings.vault_address,
    }


async def customer_of(suite: Suite, plan_id: str) -> tuple[str, Terminal]:
    """A new account, and the shell of its owner."""
    account_id, secret = await suite.open_account(plan_id)
    return account_id, Terminal(addresses(suite) | {"FLOWSTACK_API_KEY": secret})


def operator_of(suite: Suite) -> Terminal:
    """The operator's shell."""
    return Terminal(addresses(suite) | {"FLOWSTACK_ADMIN_TOKEN_FILE": str(Path(suite.data, "admin-token"))})
