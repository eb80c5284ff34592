"""A retry carries the same request_id, happens only before output, and never costs twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

import flowstack
from flowstack import AsyncAgent
from flowstack.testing import FakeFlowStack
from flowstack.testing._refusal import Refusal


def failing(fake: FakeFlowStack, times: int, *, after_reserving: bool) -> list[str]:
    """Makes the router unavailable `times` times, and notes the request_ids that came."""
    seen: list[str] = []
    complete = fake._router.complete

    async def broken(account: Any, request: Any, messages: Any) -> AsyncIterator[Any]:
        seen.append(request.request_id)
        refuse = len(seen) <= times
        if refuse and not after_reserving:
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "QUOTA_UNAVAILABLE", "Try again.")
        async for event in complete(account, request, messages):
            yield event
            if refuse:  # the answer is lost; the session counts
                raise Refusal(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "Try again.")

    fake._router.complete = broken  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("times", [1, 3])
def test_what_is_unavailable_is_tried_again(times: int) -> None:
    with FakeFlowStack() as fake, fake.agent(provider="echo") as agent:
        seen = failing(fake, times, after_reserving=False)
        assert agent.chat("Hello") == "Hello"
        assert len(seen) == times + 1
        assert len(set(seen)) == 1
        assert agent.get_usage().sessions_used == 1


def test_tries_come_to_an_end() -> None:
    with FakeFlowStack() as fake, fake.agent(provider="echo") as agent:
        seen = failing(fake, 100, after_reserving=False)
        with pytest.raises(flowstack.UnavailableError):
            agent.chat("Hello")
        assert len(seen) == 4
        assert agent.get_usage().sessions_used == 0


def test_a_session_that_broke_before_output_is_repeated_and_counted_once() -> None:
    with FakeFlowStack() as fake, fake.agent(provider="echo") as agent:
        seen = failing(fake, 1, after_reserving=True)
        assert agent.chat("Hello") == "Hello"
        assert len(seen) == 2
        assert agent.get_usage().sessions_used == 1


def test_nothing_is_repeated_after_output() -> None:
    with FakeFlowStack() as fake, fake.agent(provider="echo") as agent:
        seen = failing(fake, 0, after_reserving=False)
        with pytest.raises(flowstack.ProviderUnavailableError):
            agent.chat("Hello there", labels={"echo.fail_after": "1"})
        assert len(seen) == 1


async def test_the_async_agent_tries_again_likewise() -> None:
    with FakeFlowStack() as fake:
        seen = failing(fake, 2, after_reserving=False)
        async with AsyncAgent("a", fake.api_key, endpoint=fake.endpoint, provider="echo") as agent:
            assert await agent.chat("Hello") == "Hello"
            assert (await agent.get_usage()).sessions_used == 1
        assert len(set(seen)) == 1


def test_alerts_budgets_and_webhooks() -> None:
    with FakeFlowStack("hobbyist") as fake, fake.agent(provider="echo") as agent:
        webhook = agent.alerts.create_webhook("https://hooks.example/x?t=secret", name="ops")
        assert webhook.secret.startswith("whsec_")
        assert webhook.secret not in repr(webhook)
        assert agent.alerts.send_to([webhook.webhook_id]).webhook_ids == (webhook.webhook_id,)
        assert agent.alerts.set_thresholds([50]).thresholds == (50,)
        sent = agent.alerts.send("Look", severity="critical", data={"a": 1})
        assert sent.deliveries == {webhook.webhook_id: "pending"}
        assert [alert.message for alert in agent.alerts.list()] == ["Look"]
        with pytest.raises(flowstack.InvalidRequestError, match="severity"):
            agent.alerts.send("Look", severity="grave")
        assert agent.budget.get() is None
        assert agent.budget.set(10.5, "block").max_monthly_cost == 10.5
        status = agent.budget.get()
        assert status is not None
        assert (status.spent, status.remaining, status.exceeded, status.blocking) == (15.0, 0.0, True, True)
        with pytest.raises(flowstack.BudgetExceededError):
            agent.chat("Hello")
        agent.budget.clear()
        assert agent.chat("Hello") == "Hello"
        agent.alerts.delete_webhook(webhook.webhook_id)
        assert agent.alerts.webhooks() == []
