"""What the published page says of sessions, sentence by sentence, over the running services."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from flowstack_protos.billing.v1.subscription_service_pb2 import ChangePlanRequest

import flowstack
from flowstack import Agent, QuotaExceededError, SessionStarted, ToolReturned
from flowstack._methods import InvoiceService, SubscriptionService
from tests.sdk.conftest import Real
from tests.support.fault_server import Exchange

TOOLS = ("lookup", "summarise", "translate", "score", "remember")


@pytest.fixture
def agent(services: Real) -> Iterator[Agent]:
    with services.agent() as made:
        yield made


@pytest.fixture
def exhausted(services: Real) -> Iterator[Agent]:
    """Of an account on free whose 25 sessions are used."""
    with services.agent("free") as made:
        for _ in range(25):
            made.chat("Hello")
        yield made


async def calls_five_tools(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.calls(*((f"call_{number}", name, f'{{"n": {number}}}') for number, name in enumerate(TOOLS)))


async def answers(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.text("Here ", "you are")
    await exchange.finish(prompt_tokens=90, completion_tokens=2)


def test_five_tools_and_ten_vault_calls_inside_one_chat_are_one_session(services: Real) -> None:
    services.openai.script(calls_five_tools, answers)
    ran: list[str] = []
    with services.agent(provider="openai", model="gpt-4o", byok={"api_key": "sk-of-the-tests"}) as agent:

        def make(name: str) -> Any:
            def tool(n: int) -> dict[str, Any]:
                ran.append(name)
                agent.vault.store("notes", {"n": n, "by": name}, key=name)
                found = agent.vault.retrieve("notes", key=name)
                assert found is not None
                return dict(found)

            return tool

        for name in TOOLS:
            agent.tool(name=name, description=f"{name} it")(make(name))
        events = list(agent.stream("Do it all"))
        returned = [event for event in events if isinstance(event, ToolReturned)]
        assert [event.name for event in returned] == list(TOOLS)
        assert not any(event.is_error for event in returned)
        assert ran == list(TOOLS)
        assert sorted(document["by"] for document in agent.vault.query("notes")) == sorted(TOOLS)
        # The model had each result back, in one session of two provider calls.
        told = [message for message in services.openai.requests[-1].json["messages"] if message["role"] == "tool"]
        assert [message["tool_call_id"] for message in told] == [f"call_{number}" for number in range(5)]
        assert sum(isinstance(event, SessionStarted) for event in events) == 1
        usage = agent.get_usage()
        assert (usage.sessions_used, usage.sessions_reserved, usage.sessions_remaining) == (1, 0, 999)


def test_three_messages_of_a_user_are_three_sessions(agent: Agent) -> None:
    messages = ("Hello, can you help me?", "I need to analyze this data...", "Thanks! Can you also create a chart?")
    replies = [agent.chat(message) for message in messages]
    assert [reply.session.sessions_used for reply in replies] == [1, 2, 3]
    assert len({reply.session.session_id for reply in replies}) == 3
    assert agent.get_usage().sessions_used == 3


def test_a_batch_of_ten_requests_in_a_prompt_is_one_session(agent: Agent) -> None:
    prompt = "Process these requests:\n" + "".join(f"{n}. request {n}\n" for n in range(1, 11))
    reply = agent.chat(prompt)
    assert "10. request 10" in reply
    assert (reply.session.sessions_used, agent.get_usage().sessions_used) == (1, 1)


def test_calls_keep_no_memory_of_one_another(services: Real) -> None:
    services.openai.script(answers)
    with services.agent(provider="openai", model="gpt-4o", byok={"api_key": "sk-of-the-tests"}) as agent:
        for message in ("My name is Ada", "What is my name?"):
            agent.chat(message)
    sent = [request.json["messages"] for request in services.openai.requests[-2:]]
    assert [[message["content"] for message in messages] for messages in sent] == [
        ["My name is Ada"],
        ["What is my name?"],
    ]


def test_storing_and_reading_alone_are_no_session(agent: Agent) -> None:
    agent.vault.store("data", {"a": 1}, key="k")
    agent.vault.retrieve("data", key="k")
    agent.get_usage()
    agent.get_tier_info()
    assert agent.get_usage().sessions_used == 0


def test_the_26th_call_on_free_raises_with_what_there_is_to_know(exhausted: Agent) -> None:
    with pytest.raises(QuotaExceededError) as caught:
        exhausted.chat("Hello")
    details = caught.value.details
    usage = exhausted.get_usage()
    assert {name: details[name] for name in ("current_usage", "limit", "plan", "reset_time")} == {
        "current_usage": 25,
        "limit": 25,
        "plan": "free",
        "reset_time": usage.period_end,
    }
    assert isinstance(details["reset_time"], datetime)
    assert "25" in str(caught.value)
    assert details["upgrade_plan"] in str(caught.value)
    assert (usage.sessions_used, usage.sessions_remaining, usage.can_make_requests) == (25, 0, False)


def test_everything_but_new_sessions_works_at_the_limit(exhausted: Agent) -> None:
    with pytest.raises(QuotaExceededError):
        exhausted.chat("Hello")
    exhausted.vault.store("data", {"still": "works"}, key="k")
    assert exhausted.vault.retrieve("data", key="k") == {"still": "works"}
    assert [document.key for document in exhausted.vault.query("data", {"still": "works"})] == ["k"]
    assert exhausted.vault.delete("data", "k") == 1
    assert exhausted.get_usage().refusal_reason == "SESSION_QUOTA_EXCEEDED"
    assert exhausted.get_tier_info()["current_tier"] == "free"
    assert exhausted.models("echo")
    assert exhausted.alerts.send("At the limit").message == "At the limit"
    assert exhausted.budget.set(5).max_monthly_cost == 5.0
    client = exhausted._core.blocking()
    assert list(client.call(InvoiceService.ListInvoices, InvoiceService.ListInvoices.request()).invoices) == []
    preview = ChangePlanRequest(plan_id="hobbyist", validate_only=True)
    assert client.call(SubscriptionService.ChangePlan, preview).change.to_terms.plan_id == "hobbyist"
    with pytest.raises(QuotaExceededError):
        exhausted.chat("Still not")


def test_a_session_that_runs_when_the_limit_is_reached_finishes_with_its_tools(services: Real) -> None:
    with services.agent("free") as agent:
        for _ in range(24):
            agent.chat("Hello")

        @agent.tool
        def last(message: str) -> str:
            with pytest.raises(QuotaExceededError):
                agent.chat("One too many")  # this one holds the last session
            agent.vault.store("data", {"said": message}, key="k")
            return "done"

        assert agent.chat("The last one", labels={"echo.tool": "last"}) == "The last one"
        assert agent.vault.retrieve("data", key="k") == {"said": "The last one"}
        assert agent.get_usage().sessions_used == 25


def test_an_upgrade_lets_the_next_call_through_at_once(exhausted: Agent) -> None:
    with pytest.raises(QuotaExceededError):
        exhausted.chat("Hello")
    client = exhausted._core.blocking()
    changed = client.call(SubscriptionService.ChangePlan, ChangePlanRequest(plan_id="hobbyist"))
    assert changed.entitlement_applied
    assert exhausted.chat("Hello") == "Hello"
    assert exhausted.get_usage().sessions_limit == 200


def test_an_upgrade_within_a_period_keeps_what_was_used(services: Real) -> None:
    with services.agent("hobbyist") as agent:
        agent.chat("Hello")
        client = agent._core.blocking()
        client.call(SubscriptionService.ChangePlan, ChangePlanRequest(plan_id="starter"))
        reply = agent.chat("Hello")
        assert (reply.session.sessions_used, reply.session.sessions_limit) == (2, 1000)
        assert agent.get_usage().current_charges == 50.0  # the difference is invoiced in full


def test_a_failed_session_is_not_counted(agent: Agent) -> None:
    with pytest.raises(flowstack.ProviderUnavailableError):
        agent.chat("Hello", labels={"echo.fail_after": "0"})
    while (usage := agent.get_usage()).sessions_reserved:
        pass
    assert usage.sessions_used == 0
