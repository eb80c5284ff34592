"""Every example, and the README's Python, over the running services; OpenAI and Slack are simulators on loopback."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.e2e.terminal import addresses
from tests.support.blocks import python_blocks
from tests.support.fault_server import Exchange, FaultServer, fault_server
from tests.support.receiver import Receiver
from tests.support.suite import ROOT, Suite, running_suite

EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))

SAYS = {
    "batching": ("10: ", "Sessions of this run: 1"),
    "budget_guard": ("With room: within the budget", "Refused: "),
    "byok": ("OpenAI: Hello from a simulator", "Echo: Say hello", "Sessions with a key of one's own: 2"),
    "caching": ("asked: What is a session?", "cached: What is a session?", "Sessions of this run: 1"),
    "cost_analysis": ("Managed sessions: 0, with keys of one's own: 3", "A smaller plan would save $50.00"),
    "quickstart": ("Answer: Hello, FlowStack", "Streamed: One word at a time", "Sessions of this run: 3"),
    "slack_alerts": ("Usage is at 12 %: the alert is on its way",),
    "tools": ("In the vault: 21 degrees", "Sessions of this run: 1"),
    "usage_tracking": ("Used: 3 of 1000", "Trend: +0.10 points", "Days left: "),
}
"""What each example prints; each has an account of its own."""

PLANS = {"slack_alerts": "free"}


@dataclass
class Playground:
    """The services, and what stands in for OpenAI and Slack."""

    suite: Suite
    openai: FaultServer
    slack: Receiver


async def hello(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.text("Hello from ", "a simulator")
    await exchange.finish(prompt_tokens=5, completion_tokens=4)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def playground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Playground]:
    async with AsyncExitStack() as stack:
        openai = await stack.enter_async_context(fault_server())
        openai.script(hello)
        slack = await stack.enter_async_context(Receiver())
        suite = await stack.enter_async_context(
            running_suite(
                tmp_path_factory.mktemp("playground"),
                FLOWSTACK_OPENAI_BASE_URL=openai.url,
                FLOWSTACK_WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8",
                FLOWSTACK_WEBHOOK_ALLOW_HTTP="1",
            )
        )
        yield Playground(suite, openai, slack)


async def run(playground: Playground, plan_id: str, *arguments: str) -> str:
    """What Python prints, run with these arguments by the owner of a new account."""
    _, secret = await playground.suite.open_account(plan_id)
    variables = addresses(playground.suite) | {
        "FLOWSTACK_API_KEY": secret,
        "OPENAI_API_KEY": "sk-of-the-tests",
        "SLACK_WEBHOOK_URL": playground.slack.url("/services/T0/B0/x"),
        "PATH": os.environ["PATH"],
    }
    command = [sys.executable, *arguments]
    ended = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    assert "sk-of-the-tests" not in ended.stdout + ended.stderr
    return ended.stdout


def test_each_example_is_run() -> None:
    assert sorted(SAYS) == EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example_says_what_it_promises(playground: Playground, name: str) -> None:
    printed = await run(playground, PLANS.get(name, "starter"), f"examples/{name}.py")
    for text in SAYS[name]:
        assert text in printed
    if name == "slack_alerts":
        bodies = [received.json for received in await playground.slack.until(2)]
        assert any("by hand" in body["text"] for body in bodies)


async def test_the_readmes_python_runs_as_it_stands(playground: Playground) -> None:
    with_services, _ = python_blocks((ROOT / "README.md").read_text())  # the other is tests/unit/testing's
    assert 'api_key="fs_..."' in with_services
    printed = await run(
        playground, "starter", "-c", with_services.replace('"fs_..."', "__import__('os').environ['FLOWSTACK_API_KEY']")
    )
    assert printed.splitlines() == ["What is 2 + 2?", "999"]
