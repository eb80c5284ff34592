"""A user's type checker sees the SDK's types: a decorated function stays what it is, a misspelt option is found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = """\
from typing import assert_type
from flowstack import Agent, AsyncAgent, Document, Reply, TextDelta, Usage
from flowstack.billing import calculate_days_remaining, estimate_monthly_cost
from flowstack.testing import FakeFlowStack

agent = Agent("my-agent", api_key="fs_…", temperature=0.5)

@agent.tool
def add(a: int, b: int = 1) -> int:
    return a + b

@agent.tool(name="sub", description="Subtracts")
async def subtract(a: int) -> int:
    return a - 1

assert_type(add(1, b=2), int)
add("one")
usage: Usage = agent.get_usage()
cost: float = estimate_monthly_cost(usage) + calculate_days_remaining(agent)
reply: Reply = agent.chat("x", temperature=1.0)
agent.chat("x", temprature=1.0)
for event in agent.stream("x"):
    if isinstance(event, TextDelta):
        text: str = event.text

async def main() -> None:
    async with AsyncAgent("x") as other:
        answer: Reply = await other.chat("x")
        assert_type(await subtract(1), int)
        assert_type(await other.vault.query("c", sort=[("timestamp", -1)]), list[Document])

def test(fake: FakeFlowStack) -> None:
    fake.reply("x")
"""


def test_a_users_program_is_checked_against_what_is_installed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path), "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.findall(r"program\.py:(\d+): error: .*\[(.*)\]", checked.stdout)
    found = [(PROGRAM.splitlines()[int(line) - 1], code) for line, code in told]
    wanted = [('add("one")', "arg-type"), ('agent.chat("x", temprature=1.0)', "call-arg")]
    assert found == wanted, checked.stdout + checked.stderr
