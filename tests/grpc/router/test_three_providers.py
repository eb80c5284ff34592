"""Whole sessions over each provider: tools in rounds, reasoning that is handed back, and refusals before they cost."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from services.shared.errors import Reason
from tests.grpc.router.harness import RouterUnderTest, drained, finished, read_into, request_to, text_of
from tests.support.dialects import DIALECTS
from tests.support.fault_server import Behaviour, Exchange, FaultServer, fault_server
from tests.support.keys import BYOK, MANAGED
from tests.support.transcripts import WITH_HANDED_BACK, dialect_of, raw

TOOLS = [pb.Tool(name="look", description="Looks."), pb.Tool(name="feel")]


@pytest.fixture(params=list(DIALECTS))
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[FaultServer]:
    async with fault_server(DIALECTS[request.param]) as server:
        yield server


def results(*pairs: tuple[str, str]) -> pb.ChatRequest:
    parts = [pb.ToolResultPart(tool_call_id=id_, content=content) for id_, content in pairs]
    return pb.ChatRequest(tool_results=pb.ToolResults(results=parts))


async def until_wanted(call: Any) -> list[str]:
    while (event := await call.read()).WhichOneof("event") != "tool_results_wanted":
        pass
    return list(event.tool_results_wanted.tool_call_ids)


async def first_round(exchange: Exchange) -> None:
    await exchange.begin()
    for piece in (
        *exchange.dialect.call(0, "call_a", "look", '{"at":', ' "sky"}'),
        *exchange.dialect.call(1, "call_b", "feel", "{}"),
        *exchange.dialect.finish("tools", prompt_tokens=10, completion_tokens=5),
    ):
        await exchange.send(piece)
    await exchange.end()


async def second_round(exchange: Exchange) -> None:
    await exchange.begin()
    for piece in (
        *exchange.dialect.call(0, "call_c", "look", '{"at": "sea"}'),
        *exchange.dialect.finish("tools", prompt_tokens=20, completion_tokens=7),
    ):
        await exchange.send(piece)
    await exchange.end()


async def answers(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.text("Blue", ".")
    await exchange.finish(prompt_tokens=30, completion_tokens=2)


async def test_tools_in_rounds_within_one_session(router: RouterUnderTest) -> None:
    dialect = router.upstream.dialect
    router.upstream.script(first_round, second_round, answers)
    call = router.chat()
    await call.write(pb.ChatRequest(start=request_to(dialect, tools=TOOLS)))
    assert await until_wanted(call) == ["call_a", "call_b"]
    await call.write(results(("call_b", "cold")))
    await call.write(results(("call_a", "blue")))
    assert await until_wanted(call) == ["call_c"]
    await call.write(results(("call_c", "green")))
    rest = await read_into([], call)

    assert text_of(rest) == "Blue."
    end = finished(rest)
    assert end.finish_reason == type_pb2.FINISH_REASON_STOP
    assert (end.usage.input_tokens, end.usage.output_tokens) == (60, 14)
    assert end.outcome.tool_call_count == 3
    assert router.quota.states() == ["COMMITTED"]
    last = msgspec.json.encode(router.upstream.requests[2].json["messages"]).decode()
    places = [last.index(word) for word in ("call_a", "blue", "cold", "call_c", "green")]
    assert places == sorted(places), "calls and results in the order of the calls"


async def test_a_complete_ends_with_its_tool_calls(router: RouterUnderTest) -> None:
    router.upstream.script(first_round)
    events = await router.events(request_to(router.upstream.dialect, tools=TOOLS))

    assert [e.tool_call.arguments_json for e in events if e.WhichOneof("event") == "tool_call"] == [
        '{"at": "sky"}',
        "{}",
    ]
    assert finished(events).finish_reason == type_pb2.FINISH_REASON_TOOL_CALLS
    assert router.quota.states() == ["COMMITTED"]


THINKING = [file for file in WITH_HANDED_BACK if "omitted" not in file.stem]


@pytest.mark.parametrize(
    ("upstream", "file"),
    [(dialect_of(file).name, file) for file in THINKING],
    indirect=["upstream"],
    ids=[file.stem for file in THINKING],
)
async def test_reasoning_is_handed_back_within_a_chat(router: RouterUnderTest, file: Path) -> None:
    transcript = tomllib.loads(file.read_text())
    dialect = router.upstream.dialect

    async def thinks(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(raw(dialect, transcript["upstream"]))
        await exchange.end()

    router.upstream.script(thinks, answers)
    call = router.chat()
    await call.write(pb.ChatRequest(start=request_to(dialect, tools=[pb.Tool(name="tide")])))
    (wanted,) = await until_wanted(call)
    await call.write(results((wanted, "low")))
    rest = await read_into([], call)

    assert text_of(rest) == "Blue."
    said = router.upstream.requests[1].json["messages"][1]
    assert said == {"role": "assistant", "content": msgspec.json.decode(transcript["handed_back"])}
    assert router.quota.states() == ["COMMITTED"]


async def test_each_call_goes_out_with_its_own_keys(router: RouterUnderTest) -> None:
    dialect = router.upstream.dialect
    router.quota.managed_providers = [dialect.name]
    router.upstream.script(answers)
    for byok in (True, False, True):
        await router.events(request_to(dialect, byok=byok))

    sent = [str(request.headers) for request in router.upstream.requests]
    own, managed = BYOK[dialect.name], MANAGED[dialect.name]
    for headers, keys, others in zip(sent, (own, managed, own), (managed, own, managed), strict=True):
        assert keys[0] in headers
        assert not any(key in headers for key in others if key)
    if dialect.name == "bedrock":
        assert own[1] not in sent[0], "what is signed with stays here"
        assert own[2] in sent[0]
        assert "x-amz-security-token" not in router.upstream.requests[1].headers


IMAGE = pb.ContentPart(image=pb.ImagePart(data=b"\x89PNG", media_type="image/png"))
REFUSED = {
    "anthropic": (
        {"temperature": 1.5},
        "temperature",
    ),
    "bedrock": (
        {"tools": TOOLS, "tool_choice": pb.ToolChoice(parallel_tool_calls=False)},
        "tool_choice.parallel_tool_calls",
    ),
}


@pytest.mark.parametrize("upstream", REFUSED, indirect=True)
async def test_what_a_provider_cannot_do_costs_nothing(router: RouterUnderTest) -> None:
    fields, named = REFUSED[router.upstream.dialect.name]
    events, error = await router.failure(request_to(router.upstream.dialect, **fields))

    assert events == []
    assert error.reason is Reason.INVALID_REQUEST
    assert [violation.field for violation in error.violations] == [named]
    assert router.quota.reservations == []
    assert router.upstream.requests == []


async def test_an_image_goes_to_its_provider(router: RouterUnderTest) -> None:
    router.upstream.script(answers)
    request = request_to(router.upstream.dialect)
    request.messages[0].content.append(IMAGE)
    await router.events(request)

    assert b"iVBORw==" in router.upstream.requests[0].body


async def talks_on(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.text("some")
    await exchange.hold()


async def begins_only(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.hold()


@pytest.mark.parametrize(
    ("does", "byok", "state"),
    [
        (talks_on, True, "COMMITTED"),
        (talks_on, False, "COMMITTED"),
        (begins_only, True, "RELEASED"),
        (begins_only, False, "COMMITTED"),
    ],
    ids=["after output", "after output, managed", "before output", "before output, managed"],
)
async def test_a_client_that_goes_away(router: RouterUnderTest, does: Behaviour, byok: bool, state: str) -> None:
    dialect = router.upstream.dialect
    router.quota.managed_providers = [dialect.name]
    router.upstream.script(does)
    call = router.complete(request_to(dialect, byok=byok))
    exchange = await router.upstream.arrived()
    if does is talks_on:
        async for event in call:
            if event.text_delta:
                break
    call.cancel()

    await router.quota.until_resolved()
    await asyncio.wait_for(exchange.client_closed.wait(), 20)
    assert router.quota.states() == [state]
    assert router.quota.only.outcome.finish_reason == type_pb2.FINISH_REASON_CANCELLED


@pytest.mark.parametrize(
    ("status", "byok", "reason", "state"),
    [
        (400, True, Reason.PROVIDER_REJECTED_REQUEST, "COMMITTED"),
        (400, False, Reason.PROVIDER_REJECTED_REQUEST, "COMMITTED"),
        (403, True, Reason.PROVIDER_REJECTED_REQUEST, "COMMITTED"),
        (403, False, Reason.PROVIDER_UNAVAILABLE, "RELEASED"),
        (429, True, Reason.PROVIDER_RATE_LIMITED, "COMMITTED"),
        (429, False, Reason.PROVIDER_RATE_LIMITED, "RELEASED"),
        (503, True, Reason.PROVIDER_UNAVAILABLE, "RELEASED"),
    ],
)
async def test_a_later_round_that_is_refused(
    router: RouterUnderTest, status: int, byok: bool, reason: Reason, state: str
) -> None:
    dialect = router.upstream.dialect
    router.quota.managed_providers = [dialect.name]

    async def refuses(exchange: Exchange) -> None:
        await exchange.refuse(status, "No.")

    router.upstream.script(first_round, refuses)
    call = router.chat()
    await call.write(pb.ChatRequest(start=request_to(dialect, byok=byok, tools=TOOLS)))
    await until_wanted(call)
    await call.write(results(("call_a", "x"), ("call_b", "y")))
    _, error = await drained(call)

    assert error.reason is reason
    assert error.metadata["session_state"] == state
    assert router.quota.states() == [state]
