"""`agent.alerts` and `agent.budget`, over the running services and the fake."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

import flowstack
from flowstack import Agent, AsyncAgent
from tests.sdk.conftest import Platform, Real

HOOK = "https://hooks.example/x?token=not-to-be-shown"


@pytest.fixture
def agent(platform: Platform) -> Iterator[Agent]:
    with platform.agent("hobbyist") as made:
        yield made


def test_thresholds_are_set_and_read(agent: Agent) -> None:
    assert agent.alerts.settings().thresholds == (75, 90, 95)
    assert agent.alerts.set_thresholds([50, 100]).thresholds == (50, 100)
    assert agent.alerts.settings().thresholds == (50, 100)
    assert agent.alerts.set_thresholds([]).thresholds == ()


@pytest.mark.parametrize("thresholds", [[0], [101], [50, 50]])
def test_thresholds_that_cannot_be_are_refused(agent: Agent, thresholds: list[int]) -> None:
    with pytest.raises(flowstack.InvalidRequestError, match="thresholds") as caught:
        agent.alerts.set_thresholds(thresholds)
    assert caught.value.violations
    assert agent.alerts.settings().thresholds == (75, 90, 95)


def test_webhooks_are_made_listed_and_deleted(agent: Agent) -> None:
    made = agent.alerts.create_webhook(HOOK, name="ops")
    assert made.secret.startswith("whsec_")
    assert made.secret not in repr(made)
    (listed,) = agent.alerts.webhooks()
    assert (listed.webhook_id, listed.name, listed.format, listed.secret) == (made.webhook_id, "ops", "standard", "")
    assert listed.url.startswith("https://hooks.example/")
    assert "not-to-be-shown" not in listed.url
    slack = agent.alerts.create_webhook(HOOK, format="slack")
    assert (slack.format, slack.secret) == ("slack", "")
    assert [one.webhook_id for one in agent.alerts.webhooks()] == [slack.webhook_id, made.webhook_id]
    agent.alerts.delete_webhook(slack.webhook_id)
    agent.alerts.delete_webhook(made.webhook_id)
    assert agent.alerts.webhooks() == []


async def test_a_webhooks_secret_is_rotated(services: Real) -> None:
    with services.agent() as agent:
        made = agent.alerts.create_webhook(HOOK)
        rotated = agent.alerts.rotate_webhook_secret(made.webhook_id)
        assert (rotated.webhook_id, rotated.secret[:6]) == (made.webhook_id, "whsec_")
        assert rotated.secret != made.secret
        with pytest.raises(flowstack.NotFoundError):
            agent.alerts.rotate_webhook_secret("wh_0")
    async with AsyncAgent("a", services.key("free"), endpoint=services.endpoint) as other:
        first = await other.alerts.create_webhook(HOOK)
        assert (await other.alerts.rotate_webhook_secret(first.webhook_id)).secret != first.secret


def test_alerts_go_where_they_are_told_to(agent: Agent) -> None:
    one, other = (agent.alerts.create_webhook(HOOK) for _ in range(2))
    assert agent.alerts.send("To nobody").deliveries == {}
    assert agent.alerts.send_to([one.webhook_id]).webhook_ids == (one.webhook_id,)
    assert agent.alerts.settings().webhook_ids == (one.webhook_id,)
    assert agent.alerts.send("To one").deliveries == {one.webhook_id: "pending"}
    assert agent.alerts.send("To the other", webhook_ids=[other.webhook_id]).deliveries == {other.webhook_id: "pending"}
    assert agent.alerts.send_to([]).webhook_ids == ()
    assert [alert.message for alert in agent.alerts.list()] == ["To the other", "To one", "To nobody"]
    assert [alert.message for alert in agent.alerts.list(2)] == ["To the other", "To one"]


def test_an_alert_is_what_was_sent_and_is_sent_once(agent: Agent) -> None:
    sent = agent.alerts.send("Look", severity="critical", data={"a": Decimal("1.50")}, request_id="once")
    again = agent.alerts.send("Look", severity="critical", data={"a": Decimal("1.50")}, request_id="once")
    assert again.alert_id == sent.alert_id
    (listed,) = agent.alerts.list()
    assert (listed.alert_id, listed.kind, listed.severity) == (sent.alert_id, "custom", "critical")
    assert (listed.message, listed.threshold, listed.usage_percentage) == ("Look", None, None)
    assert agent.alerts.send("Look").severity == "warning"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"message": "x", "severity": "grave"}, "severity has to be one of info, warning, critical"),
        ({"message": ""}, "message"),
        ({"message": "x" * 2001}, "message"),
        ({"message": "x", "data": {"a": object()}}, "object"),
    ],
)
def test_alerts_that_cannot_be_are_refused(agent: Agent, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(flowstack.InvalidRequestError, match=says):
        agent.alerts.send(**arguments)
    assert agent.alerts.list() == []


def test_a_webhook_that_is_not_there_is_told(agent: Agent) -> None:
    for call in (
        lambda: agent.alerts.send("x", webhook_ids=["wh_0"]),
        lambda: agent.alerts.send_to(["wh_0"]),
        lambda: agent.alerts.delete_webhook("wh_0"),
    ):
        with pytest.raises(flowstack.NotFoundError) as caught:
            call()
        assert caught.value.reason == "WEBHOOK_NOT_FOUND"
    with pytest.raises(flowstack.InvalidRequestError, match="format has to be one of standard, slack"):
        agent.alerts.create_webhook(HOOK, format="teams")


def test_a_threshold_fires_once(agent: Agent) -> None:
    agent.alerts.set_thresholds([1])
    for _ in range(3):
        agent.chat("Hello")
    while not (fired := agent.alerts.list()):
        pass  # the ledger follows the sessions
    (alert,) = fired
    assert (alert.kind, alert.severity, alert.threshold) == ("usage_threshold", "warning", 1)
    assert alert.usage_percentage is not None
    assert alert.usage_percentage >= 1
    agent.alerts.set_thresholds([1])
    assert len(agent.alerts.list()) == 1


def test_a_budget_that_warns_refuses_nothing(agent: Agent) -> None:
    assert agent.budget.get() is None
    made = agent.budget.set(10.5)
    assert (made.max_monthly_cost, made.action) == (10.5, "warn")
    status = agent.budget.get()
    assert status is not None
    assert (status.max_monthly_cost, status.action, status.spent, status.remaining) == (10.5, "warn", 15.0, 0.0)
    assert (status.exceeded, status.blocking) == (True, False)
    assert agent.chat("Hello") == "Hello"


def test_a_budget_that_blocks_refuses_until_it_is_raised_or_dropped(agent: Agent) -> None:
    agent.budget.set(Decimal("10"), "block")
    status = agent.budget.get()
    assert status is not None
    assert (status.exceeded, status.blocking) == (True, True)
    with pytest.raises(flowstack.BudgetExceededError):
        agent.chat("Hello")
    assert agent.get_usage().refusal_reason == "BUDGET_EXCEEDED"
    agent.budget.set(20, "block")
    assert agent.chat("Hello") == "Hello"
    status = agent.budget.get()
    assert status is not None
    assert (status.spent, status.remaining, status.blocking) == (15.0, 5.0, False)
    agent.budget.set(10, "block")
    with pytest.raises(flowstack.BudgetExceededError):
        agent.chat("Hello")
    agent.budget.clear()
    assert agent.budget.get() is None
    assert agent.chat("Hello") == "Hello"
    agent.budget.clear()


@pytest.mark.parametrize(
    ("amount", "action", "says"),
    [(-1, "warn", "dollars, 0 or more"), ("much", "warn", "dollars, 0 or more"), (1, "shout", "one of warn, block")],
)
def test_budgets_that_cannot_be_are_refused(agent: Agent, amount: Any, action: str, says: str) -> None:
    with pytest.raises(flowstack.InvalidRequestError, match=says):
        agent.budget.set(amount, action)
    assert agent.budget.get() is None


async def test_the_async_agent_does_the_same(platform: Platform) -> None:
    async with AsyncAgent("a", platform.key("hobbyist"), provider="echo", endpoint=platform.endpoint) as agent:
        alerts, budget = agent.alerts, agent.budget
        assert (await alerts.set_thresholds([50])).thresholds == (50,)
        webhook = await alerts.create_webhook(HOOK, name="ops")
        assert (await alerts.send_to([webhook.webhook_id])).webhook_ids == (webhook.webhook_id,)
        assert (await alerts.settings()).webhook_ids == (webhook.webhook_id,)
        sent = await alerts.send("Look")
        assert [alert.alert_id for alert in await alerts.list()] == [sent.alert_id]
        await alerts.send_to([])
        await alerts.delete_webhook(webhook.webhook_id)
        assert await alerts.webhooks() == []
        assert await budget.get() is None
        await budget.set(10, "block")
        with pytest.raises(flowstack.BudgetExceededError):
            await agent.chat("Hello")
        await budget.clear()
        assert await agent.chat("Hello") == "Hello"
