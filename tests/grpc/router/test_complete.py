"""Complete against echo and a scripted OpenAI-compatible server: what ends well, and what is refused."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from services.shared.errors import FlowStackError, Reason
from tests.grpc.router.harness import (
    BYOK_KEY,
    MANAGED_KEY,
    METADATA,
    RouterUnderTest,
    echo_request,
    finished,
    openai_request,
    text_of,
    user,
)
from tests.support.fault_server import Exchange


async def test_echo_sends_the_words_back_and_is_counted(router: RouterUnderTest) -> None:
    events = await router.events(echo_request("one two three"))

    kinds = [event.WhichOneof("event") for event in events]
    # Words that are there already come together.
    assert (kinds[0], set(kinds[1:-1]), kinds[-1]) == ("session_started", {"text_delta"}, "session_finished")
    assert text_of(events) == "one two three"
    end = finished(events)
    assert end.finish_reason == type_pb2.FINISH_REASON_STOP
    assert end.session_state == type_pb2.SESSION_STATE_COMMITTED
    assert (end.usage.input_tokens, end.usage.output_tokens) == (3, 3)
    assert not end.usage.HasField("reasoning_tokens")
    assert end.quota.sessions_committed == 1
    session = router.quota.only
    assert session.state == type_pb2.SESSION_STATE_COMMITTED
    assert session.session_id == events[0].session_started.session_id
    assert session.account_id == "acct_1"
    assert session.api_key_id == "key_1"
    assert session.outcome == end.outcome
    assert session.outcome.served_credential_mode == type_pb2.CREDENTIAL_MODE_BYOK
    assert session.outcome.HasField("time_to_first_token")


async def test_the_lease_is_asked_for_and_labels_travel(router: RouterUnderTest) -> None:
    request = echo_request("x", team="blue")
    request.request_id = "req-1"
    await router.events(request)

    (reservation,) = router.quota.reservations
    assert reservation.lease_duration.seconds == 330
    assert dict(reservation.labels) == {"team": "blue"}
    assert reservation.request_id == "req-1"


async def test_openai_streams_text_with_the_callers_key(router: RouterUnderTest) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.text("Hel", "lo")
        await exchange.finish(prompt_tokens=7, completion_tokens=2)

    router.upstream.script(answer)
    events = await router.events(openai_request())

    assert text_of(events) == "Hello"
    end = finished(events)
    assert (end.usage.input_tokens, end.usage.output_tokens) == (7, 2)
    assert end.outcome.provider_request_id == "req_fault"
    assert end.outcome.served_model == "gpt-4o"
    (request,) = router.upstream.requests
    assert request.headers["authorization"] == f"Bearer {BYOK_KEY}"
    assert "openai-organization" not in request.headers
    assert request.json["stream_options"] == {"include_usage": True}


async def test_a_managed_session_uses_the_operators_key(router: RouterUnderTest) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.text("hi")
        await exchange.finish()

    router.quota.managed_providers = ["openai"]
    router.upstream.script(answer)
    events = await router.events(openai_request(byok=False))

    assert router.upstream.requests[0].headers["authorization"] == f"Bearer {MANAGED_KEY}"
    assert finished(events).outcome.served_credential_mode == type_pb2.CREDENTIAL_MODE_MANAGED


async def test_an_alias_stands_for_its_model(router: RouterUnderTest) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.finish()

    router.upstream.script(answer)
    request = openai_request()
    request.model = "best"
    await router.events(request)

    assert router.upstream.requests[0].json["model"] == "gpt-4o"
    assert router.quota.only.candidates[0].model == "gpt-4o"


@pytest.mark.parametrize(
    ("cap", "asked", "sent"),
    [
        (100, None, 100),
        (100, 50, 50),
        (100, 500, 100),
        (0, 500, 500),
        # A plan that allows more than the model can give is not put to its provider.
        (32_768, None, 16_384),
        (32_768, 40_000, 16_384),
        # What the caller asks for is the provider's to refuse.
        (32_768, 20_000, 20_000),
    ],
)
async def test_the_plans_cap_on_output_tokens_holds(
    router: RouterUnderTest, cap: int, asked: int | None, sent: int
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.finish()

    router.quota.max_output_tokens = cap
    router.upstream.script(answer)
    await router.events(openai_request(max_output_tokens=asked))

    assert router.upstream.requests[0].json["max_completion_tokens"] == sent


async def test_a_complete_ends_with_tool_calls(router: RouterUnderTest) -> None:
    events = await router.events(echo_request("hi", **{"echo.tool": "look"}))

    assert events[1].tool_call.name == "look"
    end = finished(events)
    assert end.finish_reason == type_pb2.FINISH_REASON_TOOL_CALLS
    assert end.outcome.tool_call_count == 1


async def test_200_at_once_on_25_sessions_run_exactly_25(router: RouterUnderTest) -> None:
    router.quota.limit = 25

    async def one() -> str:
        try:
            await router.events(echo_request("x"))
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    results = await asyncio.gather(*(one() for _ in range(200)))

    assert (results.count("OK"), results.count("RESOURCE_EXHAUSTED")) == (25, 175)
    assert router.quota.states() == ["COMMITTED"] * 25
    assert max(router.quota.batch_sizes) > 1


def _request(**changes: object) -> pb.CompleteRequest:
    request = echo_request("x")
    request.MergeFrom(pb.CompleteRequest(**changes))  # type: ignore[arg-type]
    return request


SYSTEM_IMAGE = pb.Message(
    role=pb.MESSAGE_ROLE_SYSTEM, content=[pb.ContentPart(image=pb.ImagePart(data=b"x", media_type="image/png"))]
)
BAD_CALL = pb.Message(
    role=pb.MESSAGE_ROLE_ASSISTANT,
    content=[pb.ContentPart(tool_call=pb.ToolCallPart(id="a", name="b", arguments_json="[]"))],
)


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (pb.CompleteRequest(provider="echo", model="echo-1"), Reason.INVALID_REQUEST, "messages"),
        (_request(messages=[SYSTEM_IMAGE]), Reason.INVALID_REQUEST, "messages[1].content[0].image"),
        (_request(messages=[BAD_CALL]), Reason.INVALID_REQUEST, "messages[1].content[0].tool_call.arguments_json"),
        (
            _request(tools=[pb.Tool(name="t", input_schema_json="nope")]),
            Reason.INVALID_REQUEST,
            "tools[0].input_schema_json",
        ),
        (
            _request(tool_choice=pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)),
            Reason.INVALID_REQUEST,
            "tool_choice.mode",
        ),
        (_request(response_schema_json="[]"), Reason.INVALID_REQUEST, "response_schema_json"),
        (_request(labels={"echo.words": "many"}), Reason.INVALID_REQUEST, "labels"),
        (_request(labels={"echo.tool": "absent"}), Reason.INVALID_REQUEST, "labels"),
        (pb.CompleteRequest(provider="openai", model="gpt-9", messages=[user("x")]), Reason.MODEL_NOT_FOUND, None),
        (pb.CompleteRequest(provider="bedrock", model="x", messages=[user("x")]), Reason.MODEL_NOT_FOUND, None),
        (_request(fallbacks=[pb.Fallback(provider="openai", model="gpt-9")]), Reason.MODEL_NOT_FOUND, None),
        (openai_request(byok=False), Reason.BYOK_REQUIRED, None),
        (_request(fallbacks=[pb.Fallback(provider="openai", model="gpt-4o")]), Reason.BYOK_REQUIRED, None),
    ],
)
async def test_what_is_refused_starts_nothing(
    router: RouterUnderTest, request_: pb.CompleteRequest, reason: Reason, field: str | None
) -> None:
    events, error = await router.failure(request_)

    assert events == []
    assert error.reason is reason
    assert field is None or field in {violation.field for violation in error.violations}
    assert router.quota.states() == []
    assert router.upstream.requests == []


async def test_every_candidate_is_put_to_quota(router: RouterUnderTest) -> None:
    request = echo_request("x")
    request.fallbacks.add(provider="backup", model="any")
    router.quota.managed_providers = ["backup"]
    await router.events(request)

    assert [(c.provider, c.model, c.credential_mode) for c in router.quota.only.candidates] == [
        ("echo", "echo-1", type_pb2.CREDENTIAL_MODE_BYOK),
        ("backup", "any", type_pb2.CREDENTIAL_MODE_MANAGED),
    ]


async def test_the_callers_key_goes_to_the_provider_of_its_name_alone(router: RouterUnderTest) -> None:
    async def fail(exchange: Exchange) -> None:
        await exchange.error(500, {"message": "no"})

    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.finish()

    router.quota.managed_providers = ["backup"]
    router.upstream.script(fail, answer)
    await router.events(openai_request(fallbacks=[pb.Fallback(provider="backup", model="m")]))

    keys = [request.headers["authorization"] for request in router.upstream.requests]
    assert keys == [f"Bearer {BYOK_KEY}", f"Bearer {MANAGED_KEY}"]


async def test_an_unknown_key_is_refused(router: RouterUnderTest) -> None:
    call = router.stub.Complete(echo_request(), metadata=(("authorization", "Bearer fs_wrong"),))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(call))

    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert router.quota.states() == []


async def test_a_repeated_request_id_is_refused_while_it_counts(router: RouterUnderTest) -> None:
    request = echo_request("x")
    request.request_id = "once"
    await router.events(request)
    _, error = await router.failure(request)

    assert error.reason is Reason.DUPLICATE_REQUEST
    assert router.quota.states() == ["COMMITTED"]


async def test_models_are_listed_by_page(router: RouterUnderTest) -> None:
    first = await router.stub.ListModels(pb.ListModelsRequest(page_size=1), metadata=METADATA)
    second = await router.stub.ListModels(
        pb.ListModelsRequest(page_size=1, page_token=first.next_page_token), metadata=METADATA
    )

    assert [(m.provider, m.model) for m in (*first.models, *second.models)] == [
        ("echo", "echo-1"),
        ("openai", "gpt-4o"),
    ]
    assert second.next_page_token == ""
    assert second.models[0].aliases == ["best"]
    assert second.models[0].byok_available
    assert not second.models[0].managed_available


def bare_request() -> pb.CompleteRequest:
    """For a provider on which neither the caller nor the operator has credentials."""
    return pb.CompleteRequest(provider="bare", model="m", messages=[user("x")], request_id="once")


async def test_a_repeat_is_told_before_the_credentials_that_it_lacks(router: RouterUnderTest) -> None:
    request = echo_request("x")
    request.request_id = "once"
    await router.events(request)
    _, error = await router.failure(bare_request())

    assert error.reason is Reason.DUPLICATE_REQUEST
    assert router.quota.states() == ["COMMITTED"]


@pytest.mark.parametrize(
    "reason",
    [
        Reason.ENTITLEMENT_MISSING,
        Reason.SUBSCRIPTION_ENDED,
        Reason.BUDGET_EXCEEDED,
        Reason.PAYMENT_OVERDUE,
        Reason.ACCOUNT_SUSPENDED,
    ],
)
async def test_what_quota_refuses_is_told_before_the_credentials_that_are_lacking(
    router: RouterUnderTest, reason: Reason
) -> None:
    router.quota.faults.errors["reserve"] = FlowStackError(reason, "No.")
    _, error = await router.failure(bare_request())

    assert error.reason is reason


async def test_quota_refuses_a_provider_that_the_plan_does_not_include(router: RouterUnderTest) -> None:
    _, error = await router.failure(bare_request())

    assert error.reason is Reason.BYOK_REQUIRED
    assert router.quota.states() == []


@pytest.mark.parametrize("position", ["first", "fallback"])
async def test_a_plan_that_includes_what_the_operator_has_no_credentials_for(
    router: RouterUnderTest, position: str
) -> None:
    router.quota.managed_providers = ["openai", "bare"]
    request = bare_request()
    if position == "fallback":
        request = openai_request(byok=False, request_id="once", fallbacks=[pb.Fallback(provider="bare", model="m")])
    events, error = await router.failure(request)

    assert events == [], "nothing has started"
    assert router.upstream.requests == []
    assert error.reason is Reason.BYOK_REQUIRED
    session = router.quota.only
    assert error.metadata == {
        "provider": "bare",
        "session_id": session.session_id,
        "session_state": "RELEASED",
        "counted": "false",
    }
    assert router.quota.states() == ["RELEASED"]
    assert session.release_reason == type_pb2.RELEASE_REASON_REQUEST_REJECTED

    # The caller's retry with the same request_id and its own key takes its place.
    retry = echo_request("x")
    retry.request_id = "once"
    await router.events(retry)
    assert router.quota.states() == ["RELEASED", "COMMITTED"]
