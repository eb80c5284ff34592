"""A session that does not come to its end: what its error knows of it, and who is noted to have served it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from flowstack_protos.router.v1 import router_service_pb2 as pb

from flowstack import (
    Agent,
    AsyncAgent,
    ConnectionFailedError,
    DuplicateRequestError,
    FlowStackError,
    InternalError,
    SessionStarted,
    TextDelta,
    TimeLimitError,
    UnavailableError,
)
from flowstack._conversation import Conversation
from flowstack._methods import UsageService
from flowstack.testing import FakeFlowStack
from tests.support.relay import Relay
from tests.support.suite import free_ports

ENDLESS = {"echo.words": "100000", "echo.delay_ms": "5"}
KEY = "fs_" + "0" * 75


@pytest.fixture
def fake() -> Iterator[FakeFlowStack]:
    with FakeFlowStack() as made:
        yield made


def notes(agent: Agent) -> list[dict[str, Any]]:
    agent.flush()
    return [dict(one) for one in agent.vault.query("provider_switches")]


def test_a_deadline_after_output_ends_a_session_that_is_counted(fake: FakeFlowStack) -> None:
    with fake.agent(provider="echo") as agent:
        events: list[Any] = []
        with pytest.raises(TimeLimitError, match="was not done with its answer in time") as caught:
            events.extend(agent.stream("Hello", labels=ENDLESS, timeout_s=2.0))
        assert isinstance(events[0], SessionStarted)
        assert isinstance(events[1], TextDelta)
        assert (caught.value.counted, caught.value.session_id) == (True, events[0].session_id)
        while (usage := agent.get_usage()).sessions_reserved:
            pass
        assert usage.sessions_used == 1
        [note] = notes(agent)
        served = ("session_id", "provider", "model", "credential_mode")
        assert [note[name] for name in served] == [events[0].session_id, "echo", "default", "byok"]


async def test_so_it_is_for_the_async_agent(fake: FakeFlowStack) -> None:
    async with AsyncAgent("a", fake.api_key, endpoint=fake.endpoint, provider="echo") as agent:
        with pytest.raises(TimeLimitError) as caught:
            await agent.chat("Hello", labels=ENDLESS, timeout_s=2.0)
        assert caught.value.counted is True
        await agent.flush()
        [note] = await agent.vault.query("provider_switches")
        assert note["session_id"] == caught.value.session_id


def test_a_connection_that_breaks_off_leaves_it_open_whether_the_session_was_counted(fake: FakeFlowStack) -> None:
    with Relay(fake.endpoint) as relay, Agent("a", fake.api_key, endpoint=relay.address, provider="echo") as agent:
        stream = agent.stream("Hello", labels=ENDLESS)
        started = next(stream)
        assert isinstance(started, SessionStarted)
        assert isinstance(next(stream), TextDelta)
        relay.cut()
        with pytest.raises(ConnectionFailedError, match=r"broke off in the middle of its answer\.") as caught:
            for _ in stream:
                pass
        assert caught.value.counted is None
        assert caught.value.session_id == started.session_id
        assert relay.address in str(caught.value)
        assert notes(agent) == []


def test_a_watch_that_breaks_off_says_so(fake: FakeFlowStack) -> None:
    with Relay(fake.endpoint) as relay, Agent("a", fake.api_key, endpoint=relay.address) as agent:
        watch = agent.watch_usage()
        next(watch)
        relay.cut()
        with pytest.raises(ConnectionFailedError, match=r"broke off in the middle of its answer\."):
            next(watch)


def test_a_service_that_was_never_reached_has_counted_nothing() -> None:
    with Agent("a", KEY, endpoint=f"127.0.0.1:{free_ports(1)[0]}", provider="echo") as agent:
        with pytest.raises(ConnectionFailedError, match="cannot be reached") as caught:
            agent.chat("Hello")
        assert (caught.value.counted, caught.value.session_id) == (False, "")


def request(**fields: Any) -> pb.CompleteRequest:
    return pb.CompleteRequest(provider="echo", model="echo-1", request_id="r", **fields)


def started(session_id: str) -> pb.CompletionEvent:
    return pb.CompletionEvent(session_started=pb.SessionStarted(session_id=session_id))


def lost(**details: Any) -> UnavailableError:
    return ConnectionFailedError("gone", code="UNAVAILABLE", details={"connected": True, **details})


@pytest.mark.parametrize("code", ["DEADLINE_EXCEEDED", "CANCELLED"])
def test_before_output_it_depends_on_whose_credentials_were_asked(code: str) -> None:
    """Managed sessions are counted once a provider is asked, others are not: at this end neither is known."""
    conversation = Conversation(request())
    conversation.feed(started("ses_1"))
    error = FlowStackError("late", code=code)
    conversation.failed(error)
    assert (error.counted, error.session_id) == (None, "ses_1")


def test_what_a_service_says_is_left_as_it_is() -> None:
    conversation = Conversation(request())
    conversation.feed(started("ses_1"))
    conversation.feed(pb.CompletionEvent(text_delta="x"))
    error = UnavailableError("x", code="UNAVAILABLE", reason="PROVIDER_UNAVAILABLE", details={"counted": "false"})
    conversation.failed(error)
    assert error.counted is False


def test_a_doubt_of_an_earlier_try_stays() -> None:
    conversation = Conversation(request())
    conversation.feed(started("ses_1"))
    first = lost()
    conversation.failed(first)
    assert conversation.may_retry(first)
    conversation.again()
    second = UnavailableError("x", code="UNAVAILABLE", reason="QUOTA_UNAVAILABLE")
    conversation.failed(second)
    assert (second.counted, second.session_id) == (None, "ses_1")


@pytest.mark.parametrize(("state", "counted"), [("COMMITTED", True), ("RESERVED", None)])
def test_a_repeat_that_finds_its_own_first_try_counted_says_so(state: str, counted: bool | None) -> None:
    conversation = Conversation(request())
    conversation.failed(lost())
    conversation.again()
    error = DuplicateRequestError(
        "x", code="ALREADY_EXISTS", reason="DUPLICATE_REQUEST", details={"session_state": f"SESSION_STATE_{state}"}
    )
    conversation.failed(error)
    assert error.counted is counted


def test_a_duplicate_of_another_call_is_not_this_ones() -> None:
    error = DuplicateRequestError("x", reason="DUPLICATE_REQUEST", details={"session_state": "COMMITTED"})
    Conversation(request()).failed(error)
    assert error.counted is False


def test_a_stream_that_ends_without_an_end_is_in_doubt() -> None:
    conversation = Conversation(request())
    conversation.feed(started("ses_1"))
    with pytest.raises(InternalError) as caught:
        conversation.ended()
    conversation.failed(caught.value)
    assert (caught.value.counted, caught.value.session_id) == (None, "ses_1")


@pytest.mark.parametrize(
    ("failures", "served"),
    [(0, ("openai", "gpt-4o", "byok")), (1, ("bedrock", "m", "managed")), (2, ("echo", "e", "byok"))],
)
def test_the_candidate_whose_turn_it_was_served_it(failures: int, served: tuple[str, str, str]) -> None:
    asked = pb.CompleteRequest(
        provider="openai",
        model="gpt-4o",
        byok=[pb.ByokCredentials(openai=pb.OpenAiCredentials(api_key="k"))],
        fallbacks=[pb.Fallback(provider="bedrock", model="m"), pb.Fallback(provider="echo", model="e")],
    )
    conversation = Conversation(asked)
    for _ in range(failures):
        conversation.feed(pb.CompletionEvent(attempt_failed=pb.AttemptFailed(provider="p")))
    info = conversation.unfinished("ses_1")
    assert (info.provider, info.model, info.credential_mode) == served


class BrokenError(grpc.RpcError):
    def __init__(self, text: str) -> None:
        self._text = text

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> None:
        return None


@pytest.mark.parametrize(
    ("text", "connected"),
    [
        ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused", False),
        ("DNS resolution failed for nope.invalid:1: C-ares status is not ARES_SUCCESS", False),
        ("Socket closed", True),
        ("recvmsg:Connection reset by peer", True),
    ],
)
def test_a_broken_connection_is_told_from_none(text: str, connected: bool) -> None:
    with Agent("a", KEY, endpoint="h:1") as agent:
        error = agent._client.error(UsageService.GetUsage, BrokenError(text))
        assert error.details.get("connected", False) is connected
        assert ("broke off before it answered" in str(error)) is connected


def test_a_stream_may_be_closed_by_another_thread_than_its_readers(fake: FakeFlowStack) -> None:
    with fake.agent(provider="echo") as agent:
        stream = agent.stream("Hello", labels=ENDLESS)
        begun = threading.Event()
        ended: list[str] = []

        def read() -> None:
            for event in stream:
                if isinstance(event, TextDelta):
                    begun.set()
            ended.append("without an error")

        reader = threading.Thread(target=read)
        reader.start()
        begun.wait()
        stream.close()
        reader.join()
        assert ended == ["without an error"]
        assert stream.reply is None
        [note] = notes(agent)
        while (usage := agent.get_usage()).sessions_reserved:
            pass
        assert (usage.sessions_used, note["provider"]) == (1, "echo")
