"""What users of the SDK rely on, whatever stands behind it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from flowstack_protos.billing.v1.subscription_service_pb2 import (
    CancelSubscriptionRequest,
    ChangePlanRequest,
    RevertPendingChangeRequest,
)

import flowstack
from flowstack import Agent, AsyncAgent, SessionStarted, TextDelta, ToolReturned
from flowstack._methods import SubscriptionService
from tests.sdk.conftest import Platform

ENDLESS = {"echo.words": "100000", "echo.delay_ms": "5"}


@pytest.fixture
def agent(platform: Platform) -> Iterator[Agent]:
    with platform.agent() as made:
        yield made


def until(agent: Agent, **wanted: int) -> flowstack.Usage:
    """The usage once it is as wanted; the test's own time limit ends one that never is."""
    while True:
        usage = agent.get_usage()
        if all(getattr(usage, name) == value for name, value in wanted.items()):
            return usage


def test_a_chat_is_one_session_and_answers_text_with_what_is_known_on_it(agent: Agent) -> None:
    reply = agent.chat("one two three")
    assert reply == "one two three"
    assert (reply.finish_reason, reply.usage.output_tokens, reply.usage.total_tokens) == ("stop", 3, 6)
    session = reply.session
    assert (session.state, session.provider, session.model) == ("committed", "echo", "echo-1")
    assert (session.sessions_used, session.sessions_limit, session.sessions_remaining) == (1, 1000, 999)
    usage = agent.get_usage()
    assert (usage.sessions_used, usage.byok_sessions, usage.tier) == (1, 1, "starter")
    assert usage.can_make_requests
    assert not usage.refusal_reason


def test_a_stream_has_events_and_a_view_of_text(agent: Agent) -> None:
    with agent.stream("one two") as stream:
        events = list(stream)
    assert isinstance(events[0], SessionStarted)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["one", " two"]
    assert stream.reply == "one two"
    assert list(agent.stream("one two").text) == ["one", " two"]
    assert agent.get_usage().sessions_used == 2


def test_a_stream_that_is_left_after_output_is_cancelled_and_counted(agent: Agent) -> None:
    with agent.stream("Hello", labels=ENDLESS) as stream:
        for event in stream:
            if isinstance(event, TextDelta):
                break
    assert until(agent, sessions_reserved=0).sessions_used == 1


def test_a_provider_that_fails_is_free(agent: Agent) -> None:
    with pytest.raises(flowstack.ProviderUnavailableError) as caught:
        agent.chat("Hello there", labels={"echo.fail_after": "1"})
    assert not caught.value.counted
    assert caught.value.session_id.startswith("ses_")
    assert until(agent, sessions_reserved=0).sessions_used == 0


def test_a_request_id_is_counted_once(agent: Agent) -> None:
    request_id = uuid.uuid4().hex
    first = agent.chat("Hello", request_id=request_id)
    with pytest.raises(flowstack.DuplicateRequestError) as caught:
        agent.chat("Hello", request_id=request_id)
    assert caught.value.session_id == first.session.session_id
    assert agent.get_usage().sessions_used == 1


def test_the_26th_call_on_free_raises_however_many_come_at_once(platform: Platform) -> None:
    def call(agent: Agent) -> str:
        try:
            return str(agent.chat("Hello"))
        except flowstack.QuotaExceededError as error:
            details = error.details
            assert isinstance(details["reset_time"], datetime)
            assert (details["current_usage"] <= 25, details["limit"], details["plan"]) == (True, 25, "free")
            return "refused"
        except flowstack.ConcurrencyLimitError:
            return "concurrent"

    with platform.agent("free") as agent, ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(lambda _: call(agent), range(40)))
        assert outcomes.count("Hello") == 25
        usage = agent.get_usage()
        assert (usage.sessions_used, usage.sessions_remaining, usage.can_make_requests) == (25, 0, False)
        assert usage.refusal_reason == "SESSION_QUOTA_EXCEEDED"
        assert agent.vault.store("c", {"a": 1}, key="k") == "k"


def test_a_running_session_holds_its_unit(platform: Platform) -> None:
    with platform.agent("free") as agent:
        with agent.stream("Hello", labels=ENDLESS) as stream:
            assert isinstance(next(stream), SessionStarted)
            usage = agent.get_usage()
            assert (usage.sessions_used, usage.sessions_reserved, usage.sessions_remaining) == (0, 1, 24)
            next(stream)
        assert until(agent, sessions_reserved=0).sessions_used == 1


def test_tools_run_and_their_failures_are_the_models(agent: Agent) -> None:
    @agent.tool
    def fails(message: str) -> str:
        raise ValueError("no such thing")

    @agent.tool
    async def slow(message: str) -> dict[str, Any]:
        return {"message": message, "at": datetime(2026, 1, 2, tzinfo=UTC), "price": Decimal("1.50")}

    @agent.tool(name="strict", description="Wants a number")
    def wants_a_number(message: int) -> int:
        return message

    def run(name: str) -> ToolReturned:
        events = list(agent.stream("say it", labels={"echo.tool": name}))
        return next(event for event in events if isinstance(event, ToolReturned))

    assert (run("fails").content, run("fails").is_error) == ("ValueError: no such thing", True)
    assert run("slow").content == '{"message":"say it","at":"2026-01-02T00:00:00+00:00","price":1.50}'
    assert run("strict").content.startswith("The arguments are wrong: message: ")
    assert "say it" not in run("strict").content
    assert agent.get_usage().sessions_used == 5


def test_a_chat_in_a_tool_is_a_session_of_its_own_without_tools(agent: Agent) -> None:
    @agent.tool
    def nested(message: str) -> str:
        with pytest.raises(flowstack.InvalidRequestError):
            agent.chat("deeper", labels={"echo.tool": "nested"})  # refused: this chat has no tools
        return agent.chat("inner")

    assert agent.chat("outer", labels={"echo.tool": "nested"}) == "outer"
    assert agent.get_usage().sessions_used == 2


def test_byok_is_required_on_free(platform: Platform) -> None:
    with platform.agent("free", provider="bedrock") as agent:
        with pytest.raises(flowstack.ByokRequiredError):
            agent.chat("Hello")
        assert agent.get_usage().sessions_used == 0


@pytest.mark.parametrize(("provider", "model", "near"), [("ecko", "echo-1", "echo"), ("echo", "echo-2", "echo-1")])
def test_unknown_names_are_answered_with_the_nearest(platform: Platform, provider: str, model: str, near: str) -> None:
    agent = platform.agent(provider=provider, model=model)
    with agent, pytest.raises(flowstack.ModelNotFoundError, match=near):
        agent.chat("Hello")


def test_a_key_that_is_not_known_is_refused(platform: Platform) -> None:
    with Agent("stranger", "fs_" + "0" * 75, endpoint=platform.endpoint, provider="echo") as agent:
        with pytest.raises(flowstack.AuthenticationError):
            agent.chat("Hello")
        with pytest.raises(flowstack.AuthenticationError):
            agent.get_usage()


def test_documents_come_back_as_they_went(agent: Agent) -> None:
    vault = agent.vault
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    key = vault.store("c", {"n": 7, "x": 1.5, "d": Decimal("12345678901234567890"), "t": when, "none": None})
    found = vault.retrieve("c", key)
    assert found == {"n": 7, "x": 1.5, "d": 12345678901234567890, "t": when.isoformat(), "none": None}
    assert isinstance(found["n"], int)
    assert (found.key, found.version) == (key, 1)
    assert vault.retrieve("c", "missing") is None
    assert vault.retrieve("nowhere", "missing") is None


def test_versions_guard_documents(agent: Agent) -> None:
    assert agent.vault.store("c", {"a": 1}, key="k", if_version=0).version == 1
    assert agent.vault.store("c", {"a": 2}, key="k", if_version=1).version == 2
    with pytest.raises(flowstack.ConflictError):
        agent.vault.store("c", {"a": 3}, key="k", if_version=1)
    with pytest.raises(flowstack.ConflictError):
        agent.vault.delete("c", "k", if_version=1)
    assert agent.vault.delete("c", "k", if_version=2) == 1


@pytest.mark.parametrize(
    ("where", "sort", "keys"),
    [
        (None, None, ["a", "b", "c", "d"]),
        ({"n": 2}, None, ["b"]),
        ({"n": {"$gte": 2, "$lt": 9}}, [("n", -1)], ["c", "b"]),
        ({"$or": [{"n": 1}, {"tag.name": "x"}]}, "-n", ["b", "a"]),
        ({"$not": {"n": {"$in": [1, 2]}}}, None, ["c", "d"]),
        ({"n": {"$exists": False}}, None, ["d"]),
        ({"n": {"$ne": 1}}, [("n", "desc")], ["c", "b", "d"]),
        ({"$and": [{"n": {"$nin": [3]}}, {"n": {"$lte": 2}}]}, [("n", 1)], ["a", "b"]),
    ],
)
def test_queries(agent: Agent, where: Any, sort: Any, keys: list[str]) -> None:
    for key, document in {"a": {"n": 1}, "b": {"n": 2, "tag": {"name": "x"}}, "c": {"n": 3}, "d": {"m": 0}}.items():
        agent.vault.store("q", document, key=key)
    assert [document.key for document in agent.vault.query("q", where, sort=sort)] == keys
    assert [document.key for document in agent.vault.query("q", where, sort=sort, limit=1)] == keys[:1]


def test_collections_and_deletions(agent: Agent) -> None:
    for number in range(3):
        agent.vault.store("many", {"n": number}, key=str(number))
    assert [(one.name, one.documents) for one in agent.vault.collections()] == [("many", 3)]
    assert agent.vault.delete("many", filter={"n": 1}) == 1
    assert agent.vault.delete("many", "0") == 1
    assert agent.vault.delete("many", "0") == 0
    assert agent.vault.delete("many", all=True) == 1
    assert agent.vault.collections() == []
    with pytest.raises(flowstack.InvalidRequestError):
        agent.vault.delete("many", filter={})


@pytest.mark.parametrize("where", [{"n": {"$near": 1}}, {"$xor": []}, {"n": {"$in": 1}}])
def test_bad_filters_are_refused(agent: Agent, where: Any) -> None:
    with pytest.raises(flowstack.InvalidRequestError):
        agent.vault.query("q", where)


def test_accounts_do_not_meet(platform: Platform) -> None:
    with platform.agent() as one, platform.agent() as other:
        one.vault.store("c", {"a": 1}, key="k")
        assert other.vault.retrieve("c", "k") is None
        assert other.vault.query("c", {"$or": [{"a": 1}, {"a": {"$exists": True}}]}) == []
        assert other.vault.delete("c", all=True) == 0
        assert one.vault.retrieve("c", "k") == {"a": 1}


def test_providers_are_noted_off_the_callers_path(agent: Agent, platform: Platform) -> None:
    session_id = agent.chat("Hello").session.session_id
    agent.flush()
    [note] = agent.vault.query("provider_switches", sort=[("timestamp", -1)], limit=100)
    assert (note["provider"], note["session_id"], note["agent"]) == ("echo", session_id, "tester")
    with platform.agent(record_providers=False) as silent:
        silent.chat("Hello")
        silent.flush()
        assert silent.vault.query("provider_switches") == []


def test_one_agent_serves_many_threads(agent: Agent) -> None:
    start = threading.Barrier(8)

    def call(number: int) -> str:
        start.wait()
        return agent.chat(f"text {number}")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(8))) == [f"text {number}" for number in range(8)]
    assert agent.get_usage().sessions_used == 8


def test_costs_are_estimated(agent: Agent) -> None:
    found = agent.estimate_cost(1_000, "openai", "gpt-4", price_table="seed-example")
    fees = {(one["offer"] or one["plan"], one["fee"]) for one in found}
    assert fees == {("starter", 50.0), ("professional", 200.0), ("volume-10k", 99.0)}
    for one in found:
        assert one["sessions_limit"] >= 1_000
        assert one["model"] == "gpt-4"
        if one["managed"]:
            assert (one["provider_cost"], one["total"]) == (0.0, one["fee"])
        else:  # the fake knows no provider's prices
            assert one["provider_cost"] in (None, 75.0)
            assert one["total"] in (None, one["fee"] + 75.0)
    assert sorted(one["managed"] for one in found) == [False] * 3 + [True] * 3
    assert agent.estimate_cost(30_000, "openai", "gpt-4") == []


async def test_the_async_agent_has_the_same_surface(platform: Platform) -> None:
    def public(of: type) -> set[str]:
        return {name for name in dir(of) if not name.startswith("_")}

    assert public(AsyncAgent) == public(Agent)
    async with AsyncAgent("async", platform.key("starter"), endpoint=platform.endpoint) as agent:

        @agent.tool
        async def doubled(message: str) -> str:
            return message * 2

        @agent.tool
        def blocking(message: str) -> str:
            return message

        assert await agent.chat("Hello") == "Hello"
        for tool, said in (("doubled", "xx"), ("blocking", "x")):
            events = [event async for event in agent.stream("x", labels={"echo.tool": tool})]
            assert [event.content for event in events if isinstance(event, ToolReturned)] == [said]
        async with agent.stream("Hello", labels=ENDLESS) as stream:
            async for text in stream.text:
                assert text == "Hello"
                break
        await agent.vault.store("c", {"a": 1}, key="k")
        assert await agent.vault.retrieve("c", "k") == {"a": 1}
        while (usage := await agent.get_usage()).sessions_reserved:
            pass
        assert usage.sessions_used == 4
        assert (await agent.get_tier_info())["current_tier"] == "starter"
        estimates = await agent.estimate_cost(10_000, "openai", "gpt-4", input_tokens=10, output_tokens=0)
        assert {one["offer"] for one in estimates} == {"volume-10k"}
        await agent.flush()
        assert len(await agent.vault.query("provider_switches")) == 4


def test_the_operators_default_is_found_once(platform: Platform) -> None:
    with platform.agent(provider=None) as agent:
        assert agent.chat("Hello") == "Hello"
        managed = any(one["managed"] for one in agent.models())
        assert agent.provider == ("bedrock" if managed else "echo")


def test_plans_change_as_the_faq_says(platform: Platform) -> None:
    with platform.agent("free") as agent:
        client = agent._core.blocking()
        for _ in range(25):
            agent.chat("Hello")
        with pytest.raises(flowstack.QuotaExceededError):
            agent.chat("Hello")
        client.call(SubscriptionService.ChangePlan, ChangePlanRequest(plan_id="hobbyist"))
        assert agent.chat("Hello") == "Hello"
        client.call(SubscriptionService.ChangePlan, ChangePlanRequest(plan_id="free"))
        info = agent.get_tier_info()
        assert (info["current_tier"], info["pending_tier"], info["sessions_limit"]) == ("hobbyist", "free", 200)
        assert agent.chat("Hello") == "Hello"
        client.call(SubscriptionService.RevertPendingChange, RevertPendingChangeRequest())
        client.call(SubscriptionService.CancelSubscription, CancelSubscriptionRequest())
        assert agent.get_tier_info()["state"] == "cancelling"
        assert agent.chat("Hello") == "Hello"


def test_as_many_sessions_run_at_once_as_the_plan_allows(platform: Platform) -> None:
    with platform.agent("hobbyist") as agent:
        streams = [agent.stream("Hello", labels=ENDLESS) for _ in range(50)]
        try:
            assert all(isinstance(next(stream), SessionStarted) for stream in streams)
            with pytest.raises(flowstack.ConcurrencyLimitError):
                agent.chat("Hello")
        finally:
            for stream in streams:
                stream.close()
        until(agent, sessions_reserved=0)
        assert agent.chat("Hello") == "Hello"


def test_byok_that_was_set_goes_with_its_provider(platform: Platform) -> None:
    with platform.agent("free", provider="openai", byok={"api_key": "sk-not-to-be-shown"}) as agent:
        assert "sk-not" not in repr(agent)
        agent.set_provider("anthropic")
        with pytest.raises(flowstack.ByokRequiredError) as caught:
            agent.chat("Hello")
        assert "sk-not" not in str(caught.value)
