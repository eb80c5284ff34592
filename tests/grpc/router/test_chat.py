"""The tool loop of a Chat, inside one session."""

from __future__ import annotations

from typing import Any

import pytest
from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from services.router.convert import request_from_proto
from services.router.domain.request import Customer, ToolResultPart
from services.router.limits import SessionLimits
from services.shared.errors import FlowStackError, Reason, invalid_request
from tests.grpc.router.harness import (
    RouterUnderTest,
    drained,
    echo_request,
    finished,
    openai_request,
    read_into,
    running_router,
    text_of,
)
from tests.support.fake_quota import FakeQuota
from tests.support.fault_server import Exchange, FaultServer


def call_delta(index: int, id_: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    delta = {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"choices": [{"index": 0, "delta": {"tool_calls": [delta]}}]}


async def calls_two_tools(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.text("Let me see.")
    await exchange.event(**call_delta(0, "call_a", "look", ""))
    await exchange.event(**call_delta(0, None, None, '{"at":'))
    await exchange.event(**call_delta(1, "call_b", "feel", '{"what": "ice'))
    await exchange.event(**call_delta(0, None, None, ' "sky"}'))
    await exchange.event(**call_delta(1, None, None, '"}'))
    await exchange.finish("tool_calls", prompt_tokens=10, completion_tokens=5)


async def answers(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.text("Blue.")
    await exchange.finish("stop", prompt_tokens=20, completion_tokens=1)


def results(*pairs: tuple[str, str]) -> pb.ChatRequest:
    parts = [pb.ToolResultPart(tool_call_id=id_, content=content) for id_, content in pairs]
    return pb.ChatRequest(tool_results=pb.ToolResults(results=parts))


async def start(router: RouterUnderTest, request: pb.CompleteRequest) -> tuple[Any, list[pb.CompletionEvent]]:
    """Starts a chat and reads to where results are wanted."""
    call = router.chat()
    await call.write(pb.ChatRequest(start=request))
    events = []
    while not events or events[-1].WhichOneof("event") != "tool_results_wanted":
        events.append(await call.read())
    return call, events


async def test_two_tools_at_once_and_the_answer_in_one_session(router: RouterUnderTest) -> None:
    router.upstream.script(calls_two_tools, answers)
    tools = [pb.Tool(name="look"), pb.Tool(name="feel")]
    choice = pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)
    call, events = await start(router, openai_request("sky?", tools=tools, tool_choice=choice))

    assert [(e.tool_call.id, e.tool_call.arguments_json) for e in events if e.WhichOneof("event") == "tool_call"] == [
        ("call_a", '{"at": "sky"}'),
        ("call_b", '{"what": "ice"}'),
    ]
    assert list(events[-1].tool_results_wanted.tool_call_ids) == ["call_a", "call_b"]
    # In another order than asked, and in two messages.
    await call.write(results(("call_b", "cold")))
    await call.write(results(("call_a", "blue")))
    rest = await read_into([], call)

    assert text_of(rest) == "Blue."
    end = finished(rest)
    assert (end.usage.input_tokens, end.usage.output_tokens) == (30, 6)
    assert end.outcome.tool_call_count == 2
    assert len(end.outcome.attempts) == 1
    assert router.quota.states() == ["COMMITTED"]
    first, second = (request.json for request in router.upstream.requests)
    assert first["tool_choice"] == "required"
    assert "tool_choice" not in second, "a tool that was forced has been called"
    assert second["messages"][1:] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "call_a", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}},
                {"id": "call_b", "type": "function", "function": {"name": "feel", "arguments": '{"what": "ice"}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_a", "content": "blue"},
        {"role": "tool", "tool_call_id": "call_b", "content": "cold"},
    ]


async def test_a_chat_without_tools_ends_like_a_complete(router: RouterUnderTest) -> None:
    call = router.chat()
    await call.write(pb.ChatRequest(start=echo_request("a b")))
    await call.done_writing()
    events = await read_into([], call)

    assert text_of(events) == "a b"
    assert router.quota.states() == ["COMMITTED"]


async def test_the_plans_cap_on_rounds_ends_the_loop(router: RouterUnderTest) -> None:
    router.quota.max_tool_rounds = 1
    router.upstream.script(calls_two_tools)
    call, _ = await start(router, openai_request(tools=[pb.Tool(name="look"), pb.Tool(name="feel")]))
    await call.write(results(("call_a", "x"), ("call_b", "y")))
    rest = await read_into([], call)

    assert finished(rest).finish_reason == type_pb2.FINISH_REASON_TOOL_CALLS
    assert "tool_results_wanted" not in {event.WhichOneof("event") for event in rest}
    assert router.quota.states() == ["COMMITTED"]


async def _unknown(call: Any) -> None:
    await call.write(results(("call_nobody", "x")))


async def _twice(call: Any) -> None:
    await call.write(results(("call_a", "x"), ("call_a", "x")))


async def _second_start(call: Any) -> None:
    await call.write(pb.ChatRequest(start=echo_request()))


async def _half_close(call: Any) -> None:
    await call.done_writing()


async def _breaks_a_rule(call: Any) -> None:
    await call.write(pb.ChatRequest(tool_results=pb.ToolResults()))


@pytest.mark.parametrize("misbehave", [_unknown, _twice, _second_start, _half_close, _breaks_a_rule])
async def test_a_caller_that_breaks_the_loop_is_counted(router: RouterUnderTest, misbehave: Any) -> None:
    router.upstream.script(calls_two_tools)
    call, _ = await start(router, openai_request(tools=[pb.Tool(name="look"), pb.Tool(name="feel")]))
    await misbehave(call)
    _, error = await drained(call)

    assert error.reason is Reason.INVALID_REQUEST
    assert error.metadata["counted"] == "true"
    assert router.quota.states() == ["COMMITTED"]
    assert router.quota.only.outcome.finish_reason == type_pb2.FINISH_REASON_CALLER_ERROR


class Scripted:
    """A client's side of the tool loop in which each message is there at an exact time."""

    def __init__(self) -> None:
        self.messages: list[tuple[ToolResultPart, ...] | FlowStackError] = []

    async def receive(self) -> tuple[ToolResultPart, ...] | None:
        """The next message; all that are asked for are there."""
        return self.unasked()

    def unasked(self) -> tuple[ToolResultPart, ...] | None:
        """The next message, where there is one."""
        message = self.messages.pop(0) if self.messages else None
        if isinstance(message, FlowStackError):
            raise message
        return message


SECOND_START = invalid_request("start", "can be sent only once")


@pytest.mark.parametrize(
    "later",
    [
        (ToolResultPart("call_a", "again"),),
        (ToolResultPart("call_nobody", "x"),),
        SECOND_START,
    ],
    ids=["twice", "unknown", "second start"],
)
@pytest.mark.parametrize("rounds", [1, 2])
async def test_a_later_message_that_breaks_the_loop_is_counted_though_no_round_follows(
    router: RouterUnderTest, later: Any, rounds: int
) -> None:
    router.upstream.script(*([calls_two_tools] * rounds), answers)
    request = openai_request(tools=[pb.Tool(name="look"), pb.Tool(name="feel")])
    owed = (ToolResultPart("call_a", "x"), ToolResultPart("call_b", "y"))
    client = Scripted()
    client.messages = [*([owed] * rounds), later]
    stream = router.service.chat(Customer("acct_1", "key_1"), request_from_proto(request), client)
    with pytest.raises(FlowStackError) as caught:
        while await stream.take():
            pass

    assert caught.value.reason is Reason.INVALID_REQUEST
    assert caught.value.metadata["counted"] == "true"
    assert bool(caught.value.violations) == (later is SECOND_START)
    assert router.quota.states() == ["COMMITTED"]
    assert router.quota.only.outcome.finish_reason == type_pb2.FINISH_REASON_CALLER_ERROR
    assert router.quota.only.outcome.served_provider == "openai"


async def test_results_in_a_chat_that_asked_for_none_are_counted(router: RouterUnderTest) -> None:
    client = Scripted()
    client.messages = [(ToolResultPart("call_a", "x"),)]
    stream = router.service.chat(Customer("acct_1", "key_1"), request_from_proto(echo_request("a b")), client)
    with pytest.raises(FlowStackError) as caught:
        while await stream.take():
            pass

    assert caught.value.reason is Reason.INVALID_REQUEST
    assert router.quota.states() == ["COMMITTED"]


async def test_results_that_do_not_come_in_time(quota: FakeQuota, upstream: FaultServer) -> None:
    async with running_router(quota, upstream, limits=SessionLimits(tool_results_s=0.2)) as router:
        call, _ = await start(router, echo_request("hi", **{"echo.tool": "look"}))
        _, error = await drained(call)

    assert error.reason is Reason.INVALID_REQUEST
    assert "0.2 s" in error.message
    assert quota.states() == ["COMMITTED"]


async def test_the_time_limit_while_results_are_owed_ends_well_and_counts(
    quota: FakeQuota, upstream: FaultServer
) -> None:
    limits = SessionLimits(time_limit_s=0.3, tool_results_s=30)
    async with running_router(quota, upstream, limits=limits) as router:
        call, _ = await start(router, echo_request("hi", **{"echo.tool": "look"}))
        end = finished(await read_into([], call))

    assert end.finish_reason == type_pb2.FINISH_REASON_TIME_LIMIT
    assert quota.states() == ["COMMITTED"]


async def test_many_calls_over_many_rounds_answered_in_any_order(router: RouterUnderTest) -> None:
    ids = [f"call_{n}" for n in range(8)]

    async def calls_all(exchange: Exchange) -> None:
        await exchange.head()
        for position, id_ in enumerate(ids):
            await exchange.event(**call_delta(position, id_, "look", "{}"))
        await exchange.finish("tool_calls")

    rounds = 5
    router.upstream.script(*[calls_all] * rounds, answers)
    call, events = await start(router, openai_request(tools=[pb.Tool(name="look")]))
    for number in range(rounds):
        assert list(events[-1].tool_results_wanted.tool_call_ids) == ids
        turned = ids[number:] + ids[:number]
        for some in (turned[:1], turned[1:6], turned[6:]):
            await call.write(results(*((id_, f"{id_} in round {number}") for id_ in reversed(some))))
        while (event := await call.read()).WhichOneof("event") in ("tool_call", "text_delta"):
            pass
        events.append(event)

    last = router.upstream.requests[-1].json["messages"]
    assert [m["tool_call_id"] for m in last if m["role"] == "tool"] == ids * rounds
    assert last[-1]["content"] == f"{ids[-1]} in round {rounds - 1}"
    assert finished(events).outcome.tool_call_count == rounds * len(ids)
    assert len(router.quota.reservations) == 1
    assert router.quota.states() == ["COMMITTED"]


async def test_results_over_the_limit_of_a_session(router: RouterUnderTest) -> None:
    router.upstream.script(calls_two_tools)
    call, _ = await start(router, openai_request(tools=[pb.Tool(name="look"), pb.Tool(name="feel")]))
    error = None
    for _ in range(9):
        # A round of 1 MiB each; eight of them are allowed.
        await call.write(results(("call_a", "x" * 1024 * 1024), ("call_b", "")))
        try:
            while (await call.read()).WhichOneof("event") != "tool_results_wanted":
                pass
        except Exception:
            _, error = await drained(call)
            break

    assert error is not None
    assert error.reason is Reason.INVALID_REQUEST
    assert router.quota.states() == ["COMMITTED"]


async def _refuses(exchange: Exchange) -> None:
    await exchange.error(400, {"message": "too long"})


async def _fails(exchange: Exchange) -> None:
    await exchange.error(500, {"message": "oops"})


async def _refuses_midway(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.text("Well")
    await exchange.event(error={"message": "too long", "type": "invalid_request_error"})
    await exchange.end()


async def _limits(exchange: Exchange) -> None:
    await exchange.error(429, {"message": "slow down"})


@pytest.mark.parametrize(
    ("second", "byok", "reason", "state"),
    [
        (_refuses, True, Reason.PROVIDER_REJECTED_REQUEST, "COMMITTED"),
        (_refuses, False, Reason.PROVIDER_REJECTED_REQUEST, "COMMITTED"),
        (_refuses_midway, True, Reason.PROVIDER_REJECTED_REQUEST, "COMMITTED"),
        (_refuses_midway, False, Reason.PROVIDER_REJECTED_REQUEST, "COMMITTED"),
        (_fails, True, Reason.PROVIDER_UNAVAILABLE, "RELEASED"),
        (_limits, True, Reason.PROVIDER_RATE_LIMITED, "COMMITTED"),
        (_limits, False, Reason.PROVIDER_RATE_LIMITED, "RELEASED"),
    ],
)
async def test_a_later_round_fails(
    router: RouterUnderTest, second: Any, byok: bool, reason: Reason, state: str
) -> None:
    router.quota.managed_providers = ["openai", "backup"]
    router.upstream.script(calls_two_tools, second)
    request = openai_request(
        byok=byok,
        tools=[pb.Tool(name="look"), pb.Tool(name="feel")],
        fallbacks=[pb.Fallback(provider="backup", model="m")],
    )
    call, _ = await start(router, request)
    await call.write(results(("call_a", "x"), ("call_b", "y")))
    _, error = await drained(call)

    assert error.reason is reason
    assert router.quota.states() == [state]
    assert len(router.upstream.requests) == 2, "no fallback once output has begun"


async def test_the_first_message_has_to_start(router: RouterUnderTest) -> None:
    call = router.chat()
    await call.write(results(("a", "b")))
    _, error = await drained(call)

    assert error.reason is Reason.INVALID_REQUEST
    assert router.quota.states() == []


async def test_a_chat_without_any_message(router: RouterUnderTest) -> None:
    call = router.chat()
    await call.done_writing()
    _, error = await drained(call)

    assert error.reason is Reason.INVALID_REQUEST


async def test_a_chat_whose_first_message_does_not_come_ends(quota: FakeQuota, upstream: FaultServer) -> None:
    async with running_router(quota, upstream, limits=SessionLimits(first_message_s=0.1)) as router:
        call = router.chat()
        _, error = await drained(call)

    assert error.reason is Reason.CALL_TIME_LIMIT
    assert "0.1 s" in error.message
    assert quota.states() == []


async def test_echo_calls_its_tool_then_echoes(router: RouterUnderTest) -> None:
    call, events = await start(router, echo_request("hi there", **{"echo.tool": "look"}))
    (wanted,) = events[-1].tool_results_wanted.tool_call_ids
    await call.write(results((wanted, "seen")))
    rest = await read_into([], call)

    assert text_of(rest) == "hi there"
    assert finished(rest).outcome.tool_call_count == 1
