"""What a user's test does with the fake: scripted replies, failures, a clock of its own, and what it has recorded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from flowstack_protos.router.v1 import router_service_pb2 as router
from flowstack_protos.type.v1 import type_pb2 as types

from flowstack import Agent, NotFoundError, QuotaExceededError
from flowstack.testing import FakeFlowStack
from tests.contract.target import Customer, Target, info_of, kinds, refusal, text_of

COMMITTED = types.SESSION_STATE_COMMITTED
OPENAI: dict[str, Any] = {
    "provider": "openai",
    "model": "gpt-4o",
    "byok": [router.ByokCredentials(openai=router.OpenAiCredentials(api_key="sk-own"))],
}
MANAGED: dict[str, Any] = {"provider": "bedrock", "model": "claude-3-sonnet"}


@pytest.fixture
def tool_results_timeout_s() -> float:
    """How long the fake's sessions wait for the results of tools."""
    return 60.0


@pytest.fixture
def fake(tool_results_timeout_s: float) -> Iterator[FakeFlowStack]:
    """A fake."""
    with FakeFlowStack(tool_results_timeout_s=tool_results_timeout_s) as running:
        yield running


@pytest.fixture
def target(fake: FakeFlowStack) -> Iterator[Target]:
    """Its services."""
    with grpc.insecure_channel(fake.endpoint) as channel:
        yield Target(router=channel, billing=channel, vault=channel, admin_token=fake.admin_token)


def customer(fake: FakeFlowStack, target: Target, plan: str = "free") -> Customer:
    """A new account."""
    secret = fake.new_account(plan)
    return Customer(target, fake.account_id(secret), secret)


def test_replies_are_given_in_order_and_then_echoes(fake: FakeFlowStack, target: Target) -> None:
    free = customer(fake, target)
    fake.reply("It is  4.", "And 5.")

    assert [text_of(free.complete("what?")) for _ in range(3)] == ["It is  4.", "And 5.", "what?"]


def test_a_scripted_tool_call_goes_through_the_tool_loop(fake: FakeFlowStack, target: Target) -> None:
    free = customer(fake, target)
    fake.reply_with_tool_calls([("add", {"a": 2}), ("add", {"a": 3})], text="Let me see.")
    fake.reply("5.")
    results = [router.ToolResultPart(tool_call_id=f"call_1_{n}", content="5") for n in (1, 2)]
    start = router.ChatRequest(start=start_of(tools=[router.Tool(name="add")]))
    events = list(free.chat([start, router.ChatRequest(tool_results=router.ToolResults(results=results))]))

    calls = [event.tool_call for event in events if event.HasField("tool_call")]
    assert [(call.id, call.name, call.arguments_json) for call in calls] == [
        ("call_1_1", "add", '{"a": 2}'),
        ("call_1_2", "add", '{"a": 3}'),
    ]
    assert text_of(events) == "Let me see.5."
    assert events[-1].session_finished.outcome.tool_call_count == 2
    assert free.usage().sessions_used == 1


def start_of(**fields: Any) -> router.CompleteRequest:
    """The start of a chat."""
    message = router.Message(role=router.MESSAGE_ROLE_USER, content=[router.ContentPart(text="2 + 3?")])
    return router.CompleteRequest(**{"provider": "echo", "model": "echo-1", "messages": [message], **fields})


def test_rounds_end_with_the_plans_limit(fake: FakeFlowStack, target: Target) -> None:
    free = customer(fake, target)
    for _ in range(26):
        fake.reply_with_tool_call("add")
    results = [router.ToolResults(results=[router.ToolResultPart(tool_call_id=f"call_{n}_1")]) for n in range(1, 26)]
    requests = [router.ChatRequest(start=start_of()), *(router.ChatRequest(tool_results=one) for one in results)]
    events = list(free.chat(requests))

    assert kinds(events).count("tool_results_wanted") == 25
    assert events[-1].session_finished.finish_reason == types.FINISH_REASON_TOOL_CALLS


@pytest.mark.parametrize("tool_results_timeout_s", [0.05])
def test_results_that_do_not_come_end_the_session(fake: FakeFlowStack, target: Target) -> None:
    free = customer(fake, target)
    fake.reply_with_tool_call("add")

    def requests() -> Iterator[router.ChatRequest]:
        yield router.ChatRequest(start=start_of())
        ended.wait()

    ended = threading.Event()
    stream = free.chat(requests())
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    ended.set()

    assert "did not arrive within 0.05 s" in caught.value.details()  # type: ignore[attr-defined]
    assert info_of(caught.value).metadata["counted"] == "true"


@pytest.mark.parametrize(
    ("failure", "fields", "after", "reason", "counted"),
    [
        ("provider_error", OPENAI, "", "PROVIDER_UNAVAILABLE", "false"),
        ("truncated", OPENAI, "so far", "PROVIDER_UNAVAILABLE", "false"),
        ("rate_limited", OPENAI, "", "PROVIDER_RATE_LIMITED", "false"),
        ("rate_limited", OPENAI, "so far", "PROVIDER_RATE_LIMITED", "true"),
        ("rate_limited", MANAGED, "so far", "PROVIDER_RATE_LIMITED", "false"),
        ("credentials_refused", OPENAI, "", "PROVIDER_REJECTED_REQUEST", "false"),
        ("credentials_refused", OPENAI, "so far", "PROVIDER_REJECTED_REQUEST", "true"),
        ("credentials_refused", MANAGED, "", "PROVIDER_UNAVAILABLE", "false"),
        ("request_rejected", OPENAI, "", "PROVIDER_REJECTED_REQUEST", "false"),
        ("request_rejected", OPENAI, "so far", "PROVIDER_UNAVAILABLE", "false"),
    ],
)
def test_failures(  # noqa: PLR0917  # a table's columns
    fake: FakeFlowStack, target: Target, failure: Any, fields: dict[str, Any], after: str, reason: str, counted: str
) -> None:
    paid = customer(fake, target, "hobbyist")
    fake.fail(failure, after=after, message="no luck")
    stream = paid.complete(**fields)
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)

    info = info_of(caught.value)
    assert (info.reason, info.metadata["counted"]) == (reason, counted)
    assert paid.usage().sessions_used == (counted == "true")


def test_a_fallback_takes_over(fake: FakeFlowStack, target: Target) -> None:
    free = customer(fake, target)
    fake.fail("unreachable")
    fake.reply("From the second.")
    events = list(free.complete(**OPENAI, fallbacks=[{"provider": "echo", "model": "echo-1"}]))

    assert kinds(events)[:2] == ["session_started", "attempt_failed"]
    assert text_of(events) == "From the second."
    outcome = events[-1].session_finished.outcome
    assert outcome.served_provider == "echo"
    assert [attempt.provider for attempt in outcome.attempts] == ["openai", "echo"]


@pytest.mark.parametrize(("fields", "used"), [(MANAGED, 1), (OPENAI, 0)])
def test_who_leaves_before_output_pays_for_a_managed_prompt(
    fake: FakeFlowStack, target: Target, fields: dict[str, Any], used: int
) -> None:
    paid = customer(fake, target, "hobbyist")
    fake.reply("never said", delay_s=600)
    stream = paid.complete(**fields)
    next(stream)
    while fake.replies_left:
        pass  # once the reply is taken, the session is with its provider
    stream.cancel()

    usage = paid.usage_once(lambda found: found.sessions_reserved == 0)
    assert (usage.sessions_used, usage.managed_sessions) == (used, used)


@pytest.mark.parametrize(("delay_s", "output"), [(600.0, False), (0.01, True)])
def test_the_time_limit(delay_s: float, output: bool) -> None:
    with FakeFlowStack(session_time_limit_s=0.2) as fake, grpc.insecure_channel(fake.endpoint) as channel:
        target = Target(router=channel, billing=channel, vault=channel, admin_token=fake.admin_token)
        free = customer(fake, target)
        fake.reply("on and on " * 1_000, delay_s=delay_s)
        stream = free.complete()
        if output:
            finished = list(stream)[-1].session_finished
            assert (finished.finish_reason, finished.session_state) == (types.FINISH_REASON_TIME_LIMIT, COMMITTED)
        else:
            assert refusal(lambda: stream)[1].reason == "SESSION_TIME_LIMIT"
        assert free.usage().sessions_used == int(output)


def test_requests_are_kept_without_credentials(fake: FakeFlowStack, target: Target) -> None:
    free = customer(fake, target)
    list(free.complete("hello", **OPENAI))

    (request,) = fake.requests
    assert (request.provider, request.messages[0].content[0].text) == ("openai", "hello")
    assert b"sk-own" not in request.SerializeToString()


def test_closing_ends_what_runs_uncounted(fake: FakeFlowStack, target: Target) -> None:
    free = customer(fake, target)
    fake.reply("never said", delay_s=600)
    stream = free.complete()
    next(stream)
    fake.close()
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)

    assert info_of(caught.value).reason == "SHUTTING_DOWN"
    fake.close()


def test_two_fakes_know_nothing_of_each_other(fake: FakeFlowStack, target: Target) -> None:
    with FakeFlowStack() as other:
        stranger = Customer(target, "", other.new_account())
        assert other.endpoint != fake.endpoint
        assert refusal(stranger.usage)[1].reason == "API_KEY_INVALID"


def test_mistakes_of_a_test_are_told(fake: FakeFlowStack) -> None:
    with pytest.raises(ValueError, match="free, hobbyist, starter, professional"):
        fake.new_account("gold")
    with pytest.raises(ValueError, match=r"no failure of a provider\. There are unreachable, .*, stalled"):
        fake.fail("bored")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not go back"):
        fake.advance(days=-1)
    with pytest.raises(TypeError, match="An answer has to be a str, and is int: 4"):
        fake.reply("Two.", 4)  # type: ignore[arg-type]
    for slow in (fake.reply, fake.reply_with_tool_call):
        with pytest.raises(ValueError, match="delay_s has to be 0 or more"):
            slow("x", delay_s=-1)
    assert fake.replies_left == 0
    with pytest.raises(ValueError, match="times has to be 1 or more"):
        fake.be_unavailable(0)
    with pytest.raises(KeyError, match="No account of this fake"):
        fake.account_id("fs_of_another_fake")


def test_a_larger_plan_lets_the_next_call_through_and_a_smaller_one_waits(fake: FakeFlowStack) -> None:
    free = fake.new_account("free")
    with Agent("a", free, endpoint=fake.endpoint, provider="echo") as agent:
        for _ in range(25):
            agent.chat("Hello")
        with pytest.raises(QuotaExceededError):
            agent.chat("Hello")
        fake.change_plan("hobbyist", free)
        agent.chat("Hello")
        fake.change_plan("free", free)
        assert agent.get_usage().tier == "hobbyist"
        fake.advance(days=31)
        assert agent.get_usage().tier == "free"
    with fake.agent() as own:
        fake.change_plan("professional")
        assert own.get_usage().tier == "professional"
    with pytest.raises(NotFoundError):
        fake.change_plan("gold")


async def test_an_agent_for_asyncio(fake: FakeFlowStack) -> None:
    fake.reply("Four.")
    async with fake.async_agent("a", system="Be brief.") as agent:
        assert await agent.chat("2 + 2?") == "Four."
        assert (await agent.get_usage()).sessions_used == 1
    assert fake.requests[-1].messages[0].role == router.MESSAGE_ROLE_SYSTEM
