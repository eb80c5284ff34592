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

from flowstack import Agent
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
    "slack_alerts": ("Usage is at 4 %: the alert is on its way", "Delivered: 2"),
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
    return await run_by(playground, secret, *arguments)


async def run_by(playground: Playground, secret: str, *arguments: str) -> str:
    """The same, by the owner of this key."""
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
        assert any("By hand" in body["text"] for body in bodies)


def agent_of(playground: Playground, secret: str) -> Agent:
    suite = playground.suite.settings
    endpoint = {"router": suite.router_address, "billing": suite.billing_address, "vault": suite.vault_address}
    return Agent("test", api_key=secret, endpoint=endpoint, record_providers=False)


async def test_the_budget_guard_says_that_it_needs_a_paid_plan(playground: Playground) -> None:
    account_id, secret = await playground.suite.open_account("free")
    printed = await run_by(playground, secret, "examples/budget_guard.py")
    assert "needs a paid plan" in printed
    assert (await playground.suite.account_quota(account_id)).sessions_committed == 0


@pytest.mark.parametrize("own", [(12.5, "warn"), (1.0, "block")])
async def test_the_budget_guard_puts_back_the_accounts_own(playground: Playground, own: tuple[float, str]) -> None:
    _, secret = await playground.suite.open_account("starter")
    agent = agent_of(playground, secret)
    await asyncio.to_thread(agent.budget.set, *own)
    assert "Refused: " in await run_by(playground, secret, "examples/budget_guard.py")
    found = await asyncio.to_thread(agent.budget.get)
    assert found is not None
    assert (found.max_monthly_cost, found.action) == own


async def test_slack_alerts_puts_back_the_accounts_own_settings(playground: Playground) -> None:
    _, secret = await playground.suite.open_account("free")
    agent = agent_of(playground, secret)
    await asyncio.to_thread(agent.alerts.set_thresholds, [33])
    mine = await asyncio.to_thread(agent.alerts.create_webhook, playground.slack.url("/mine"))
    await asyncio.to_thread(agent.alerts.send_to, [mine.webhook_id])
    for _ in range(2):
        assert "Delivered: 2" in await run_by(playground, secret, "examples/slack_alerts.py")
    settings = await asyncio.to_thread(agent.alerts.settings)
    assert (settings.thresholds, settings.webhook_ids) == ((33,), (mine.webhook_id,))
    assert [one.webhook_id for one in await asyncio.to_thread(agent.alerts.webhooks)] == [mine.webhook_id]


async def test_the_cost_analysis_says_what_is_not_known(playground: Playground) -> None:
    _, secret = await playground.suite.open_account("starter")
    agent = agent_of(playground, secret)
    agent.set_provider("openai", byok={"api_key": "sk-of-the-tests"})
    agent.set_model("a-model-without-a-price")
    assert await asyncio.to_thread(agent.chat, "hi") == "Hello from a simulator"
    async with asyncio.timeout(60):
        while not (await playground.suite.usage(secret)).unpriced_sessions:
            pass  # each look asks billing; the event is on its way to the ledger
    assert "What going managed would save is not known" in await run_by(playground, secret, "examples/cost_analysis.py")


async def test_the_readmes_python_runs_as_it_stands(playground: Playground) -> None:
    with_services, _ = python_blocks((ROOT / "README.md").read_text())  # the other is tests/unit/testing's
    assert 'api_key="fs_..."' in with_services
    printed = await run(
        playground, "starter", "-c", with_services.replace('"fs_..."', "__import__('os').environ['FLOWSTACK_API_KEY']")
    )
    assert printed.splitlines() == ["What is 2 + 2?", "999"]
