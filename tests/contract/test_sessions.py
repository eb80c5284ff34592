"""One call is one session, whatever is in it."""

from __future__ import annotations

import grpc
import pytest
from flowstack_protos.type.v1 import type_pb2 as types
from google.rpc import error_details_pb2

from tests.contract.target import Customer, details_of, info_of, kinds, refusal, text_of

COMMITTED = types.SESSION_STATE_COMMITTED


def test_a_completion_is_streamed_and_counted(free: Customer) -> None:
    events = list(free.complete("one two three"))

    first, *output, last = kinds(events)
    # Words that come at once may come as one delta.
    assert (first, set(output), last) == ("session_started", {"text_delta"}, "session_finished")
    assert text_of(events) == "one two three"
    started, finished = events[0].session_started, events[-1].session_finished
    assert started.session_id.startswith("ses_")
    assert (started.quota.sessions_reserved, started.quota.sessions_remaining) == (1, 24)
    assert (finished.finish_reason, finished.session_state) == (types.FINISH_REASON_STOP, COMMITTED)
    assert (finished.usage.input_tokens, finished.usage.output_tokens) == (3, 3)
    assert finished.outcome.served_provider == "echo"
    assert finished.outcome.served_credential_mode == types.CREDENTIAL_MODE_BYOK
    assert (finished.quota.sessions_committed, finished.quota.sessions_reserved) == (1, 0)


def test_usage_read_after_a_session_includes_it(free: Customer) -> None:
    before = free.usage()
    for _ in range(3):
        list(free.complete())
    after = free.usage()

    assert (before.sessions_used, before.sessions_remaining, before.can_make_requests) == (0, 25, True)
    assert (after.sessions_used, after.sessions_limit, after.sessions_remaining) == (3, 25, 22)
    assert (after.usage_percentage, after.is_near_limit) == (12, False)
    assert (after.plan_id, after.can_use_managed, after.byok_sessions) == ("free", False, 3)
    assert after.account_id == free.account_id
    assert after.current_charges.units == 0


@pytest.mark.parametrize(
    ("labels", "text", "reason"),
    [
        ({"echo.words": "5"}, "a b a b a", types.FINISH_REASON_STOP),
        ({"echo.words": "0"}, "", types.FINISH_REASON_STOP),
        ({"echo.delay_ms": "1"}, "a b", types.FINISH_REASON_STOP),
        ({"echo.fail_after": "9"}, "a b", types.FINISH_REASON_STOP),
    ],
)
def test_labels_steer_the_echo(free: Customer, labels: dict[str, str], text: str, reason: int) -> None:
    events = list(free.complete("a b", labels=labels))

    assert text_of(events) == text
    assert events[-1].session_finished.finish_reason == reason
    assert events[-1].session_finished.session_state == COMMITTED


def test_output_ends_at_max_output_tokens(free: Customer) -> None:
    events = list(free.complete("a b c d", max_output_tokens=2))

    assert text_of(events) == "a b"
    assert events[-1].session_finished.finish_reason == types.FINISH_REASON_MAX_OUTPUT_TOKENS


@pytest.mark.parametrize(("fail_after", "output"), [("0", ""), ("2", "a b")])
def test_a_session_that_its_provider_fails_is_free(free: Customer, fail_after: str, output: str) -> None:
    stream = free.complete("a b c", labels={"echo.fail_after": fail_after})
    events = []
    with pytest.raises(grpc.RpcError) as caught:
        for event in stream:
            events.append(event)  # noqa: PERF402  # what came before the failure counts

    info = info_of(caught.value)
    assert stream.code() is grpc.StatusCode.UNAVAILABLE
    assert info.reason == "PROVIDER_UNAVAILABLE"
    assert info.metadata["session_id"] == events[0].session_started.session_id
    assert (info.metadata["session_state"], info.metadata["counted"]) == ("RELEASED", "false")
    assert text_of(events) == output
    assert free.usage().sessions_used == 0


def test_a_fallback_is_told_of_and_costs_one_session(free: Customer) -> None:
    fallbacks = [{"provider": "echo", "model": "echo-1"}]
    stream = free.complete("a", labels={"echo.fail_after": "0"}, fallbacks=fallbacks)
    events = []
    with pytest.raises(grpc.RpcError):
        for event in stream:
            events.append(event)  # noqa: PERF402  # as above

    assert kinds(events) == ["session_started", "attempt_failed"]
    assert events[1].attempt_failed.reason == types.ATTEMPT_FAILURE_PROVIDER_ERROR
    assert free.usage().sessions_used == 0


def test_a_repeat_by_request_id_costs_nothing(free: Customer) -> None:
    first = list(free.complete(request_id="r1"))
    code, info = refusal(lambda: free.complete("something else", request_id="r1"))

    assert (code, info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DUPLICATE_REQUEST")
    assert info.metadata["session_id"] == first[0].session_started.session_id
    assert info.metadata["session_state"] == "COMMITTED"
    assert free.usage().sessions_used == 1


def test_a_request_id_is_free_again_after_a_failure(free: Customer) -> None:
    refusal(lambda: free.complete(request_id="r1", labels={"echo.fail_after": "0"}))
    events = list(free.complete(request_id="r1"))

    assert events[-1].session_finished.session_state == COMMITTED
    assert free.usage().sessions_used == 1


def test_a_running_session_holds_its_request_id(free: Customer) -> None:
    stream = free.complete(request_id="r1", labels={"echo.words": "100", "echo.delay_ms": "10000"})
    started = next(stream).session_started
    _, info = refusal(lambda: free.complete(request_id="r1"))
    stream.cancel()

    assert info.reason == "DUPLICATE_REQUEST"
    assert dict(info.metadata) == {"session_id": started.session_id, "session_state": "RESERVED"}


@pytest.mark.parametrize(
    ("fields", "code", "reason", "metadata"),
    [
        ({"provider": "nobody"}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", {}),
        ({"model": "echo-2"}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", {"provider": "echo"}),
        (
            {"provider": "openai", "model": "gpt-4o"},
            grpc.StatusCode.PERMISSION_DENIED,
            "BYOK_REQUIRED",
            {"provider": "openai", "plan": "free"},
        ),
        (
            {"fallbacks": [{"provider": "bedrock", "model": "claude-3-sonnet"}]},
            grpc.StatusCode.PERMISSION_DENIED,
            "BYOK_REQUIRED",
            {"provider": "bedrock", "plan": "free"},
        ),
        (
            {"fallbacks": [{"provider": "echo", "model": "echo-2"}]},
            grpc.StatusCode.NOT_FOUND,
            "MODEL_NOT_FOUND",
            {"provider": "echo", "candidate": "1"},
        ),
        ({"messages": []}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", {}),
        ({"temperature": 3}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", {}),
        ({"tools": [{"name": "a"}, {"name": "a"}]}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", {}),
        (
            {"tools": [{"name": "a", "input_schema_json": "[]"}]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
            {},
        ),
        ({"labels": {"echo.words": "many"}}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", {}),
        ({"labels": {"echo.tool": "none"}}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", {}),
        ({"labels": {str(n): "" for n in range(17)}}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", {}),
    ],
)
def test_a_refused_request_costs_nothing(
    free: Customer, fields: dict[str, object], code: grpc.StatusCode, reason: str, metadata: dict[str, str]
) -> None:
    found, info = refusal(lambda: free.complete(**fields))

    assert (found, info.reason, dict(info.metadata)) == (code, reason, metadata)
    usage = free.usage()
    assert (usage.sessions_used, usage.sessions_reserved) == (0, 0)


def test_a_bad_request_names_its_fields(free: Customer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(free.complete(temperature=3, top_p=0))

    bad = [detail for detail in details_of(caught.value) if isinstance(detail, error_details_pb2.BadRequest)]
    assert {violation.field for violation in bad[0].field_violations} == {"temperature", "top_p"}
