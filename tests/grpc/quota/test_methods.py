"""Every unary method over the wire: what it answers and what it refuses with."""

from __future__ import annotations

import grpc
import pytest
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.grpc.quota.conftest import Client
from tests.grpc.quota.wire import (
    BYOK,
    MANAGED,
    commit_request,
    entitlement_request,
    failure,
    release_request,
    reserve_request,
    seconds,
    time_of,
)
from tests.support.clock import DAY_US, ManualClock, us
from tests.support.quota import ACCOUNT, ANCHOR_US, NEXT_PERIOD_US, OTHER, uuid7_session_id

CODE = grpc.StatusCode


async def test_a_sessions_life(quota: Client, clock: ManualClock) -> None:
    session_id = quota.new_id()
    candidates = [
        type_pb2.Candidate(provider="openai", model="gpt-4o", credential_mode=MANAGED),
        type_pb2.Candidate(provider="anthropic", model="c", credential_mode=BYOK),
    ]
    request = reserve_request(
        session_id,
        candidates=candidates,
        lease_duration=seconds(90),
        request_id="req-1",
        api_key_id="key_1",
        labels={"team": "blue", "app": "x"},
    )
    answer = await quota.ReserveSession(request)
    now = time_of(clock.now_us())
    assert not answer.replayed
    assert answer.session == type_pb2.Session(
        session_id=session_id,
        account_id=ACCOUNT,
        state=type_pb2.SESSION_STATE_RESERVED,
        candidates=candidates,
        period_start_time=time_of(ANCHOR_US),
        reserve_time=now,
        expire_time=time_of(clock.now_us() + 90_000_000),
        request_id="req-1",
        api_key_id="key_1",
        labels={"team": "blue", "app": "x"},
        entitlement_revision=1,
    )
    assert answer.quota == type_pb2.Quota(
        account_id=ACCOUNT,
        plan_id="starter",
        period_start_time=time_of(ANCHOR_US),
        period_end_time=time_of(NEXT_PERIOD_US),
        session_limit=10,
        sessions_reserved=1,
        sessions_remaining=9,
        managed_providers=["openai"],
        max_concurrent_sessions=1_000,
        max_output_tokens=4_096,
        max_tool_rounds=25,
        sessions_available=True,
        entitlement_revision=1,
    )

    clock.advance(3)
    outcome = type_pb2.SessionOutcome(
        finish_reason=type_pb2.FINISH_REASON_TOOL_CALLS,
        provider_finish_reason="tool_calls",
        served_provider="openai",
        served_model="gpt-4o",
        served_credential_mode=MANAGED,
        input_tokens=12,
        output_tokens=0,
        attempts=[type_pb2.Attempt(provider="openai", model="gpt-4o", input_tokens=12)],
        provider_latency=Duration(nanos=5_000_000),
        tool_call_count=2,
    )
    over = await quota.CommitSession(
        pb.CommitSessionRequest(account_id=ACCOUNT, session_id=session_id, outcome=outcome)
    )
    assert over.session.state == type_pb2.SESSION_STATE_COMMITTED
    assert over.session.outcome == outcome
    assert over.session.outcome.HasField("output_tokens"), "0 is not unknown"
    assert not over.session.outcome.HasField("reasoning_tokens"), "unknown is not 0"
    assert over.session.resolve_time == time_of(clock.now_us())
    counts = (over.quota.sessions_committed, over.quota.managed_sessions, over.quota.byok_sessions)
    assert counts == (1, 1, 0)
    assert (over.quota.sessions_reserved, over.quota.sessions_remaining) == (0, 9)

    found = await quota.GetSession(pb.GetSessionRequest(account_id=ACCOUNT, session_id=session_id))
    assert found.session == over.session
    shown = await quota.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT))
    assert shown.quota == over.quota
    again = await quota.ReserveSession(request)
    assert again.replayed
    assert again.session == over.session


async def test_release(quota: Client) -> None:
    session_id = quota.new_id()
    await quota.ReserveSession(reserve_request(session_id))
    first = await quota.ReleaseSession(release_request(session_id))
    again = await quota.ReleaseSession(release_request(session_id))
    assert (first.replayed, again.replayed) == (False, True)
    assert first.session == again.session
    assert first.session.state == type_pb2.SESSION_STATE_RELEASED
    assert first.session.release_reason == type_pb2.RELEASE_REASON_PROVIDER_FAILED
    assert not first.session.HasField("outcome")
    assert first.quota.sessions_remaining == 10


async def test_a_tombstone_on_the_wire(quota: Client) -> None:
    session_id = quota.new_id()
    answer = await quota.ReleaseSession(release_request(session_id, OTHER))
    assert not answer.HasField("quota"), "the account has no entitlement"
    unset = ("period_start_time", "reserve_time", "expire_time", "outcome")
    assert not any(answer.session.HasField(name) for name in unset)
    assert answer.session.HasField("resolve_time")
    late = await failure(quota.ReserveSession(reserve_request(session_id, OTHER)))
    assert (late.code, late.reason) == (CODE.FAILED_PRECONDITION, "SESSION_ALREADY_RESOLVED")
    assert late.metadata["session_state"] == "RELEASED"


async def test_the_lease_is_330_seconds_by_default(quota: Client) -> None:
    session = (await quota.ReserveSession(reserve_request(quota.new_id()))).session
    assert session.expire_time.seconds - session.reserve_time.seconds == 330


async def test_entitlements(quota: Client) -> None:
    full = entitlement_request(OTHER, end_time=time_of(NEXT_PERIOD_US)).entitlement
    full.terms.add(effective_time=time_of(us(2026, 3, 15)), plan_id="free", session_limit=1)
    full.block.reason = pb.BLOCK_REASON_PAYMENT_OVERDUE
    full.block.message = "Pay."
    full.block.until_time.CopyFrom(time_of(us(2026, 3, 12)))
    stored = await quota.PutEntitlement(pb.PutEntitlementRequest(entitlement=full))
    assert stored.entitlement == full
    read = await quota.GetEntitlement(pb.GetEntitlementRequest(account_id=OTHER))
    assert read.entitlement == full


async def test_stale_entitlements(quota: Client) -> None:
    await quota.PutEntitlement(entitlement_request(revision=5))
    for stale in (entitlement_request(revision=4), entitlement_request(revision=5, limit=11)):
        told = await failure(quota.PutEntitlement(stale))
        assert (told.code, told.reason) == (CODE.ABORTED, "STALE_REVISION")
        assert told.metadata == {"stored_revision": "5"}
    assert (await quota.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT))).quota.session_limit == 10


async def test_an_account_without_entitlement(quota: Client) -> None:
    calls = [
        quota.ReserveSession(reserve_request(quota.new_id(), OTHER)),
        quota.GetQuota(pb.GetQuotaRequest(account_id=OTHER)),
        quota.GetEntitlement(pb.GetEntitlementRequest(account_id=OTHER)),
        quota.WatchQuota(pb.WatchQuotaRequest(account_id=OTHER)),
    ]
    for call in calls:
        told = await failure(call)
        assert (told.code, told.reason) == (CODE.FAILED_PRECONDITION, "ENTITLEMENT_MISSING")


async def test_quota_exceeded(quota: Client) -> None:
    await quota.PutEntitlement(entitlement_request(revision=2, limit=1))
    await quota.ReserveSession(reserve_request(quota.new_id()))
    told = await failure(quota.ReserveSession(reserve_request(quota.new_id())))
    assert (told.code, told.reason) == (CODE.RESOURCE_EXHAUSTED, "SESSION_QUOTA_EXCEEDED")
    assert told.metadata == {
        "current_usage": "1",
        "limit": "1",
        "plan": "starter",
        "reset_time": "2026-04-01T00:00:00Z",
        "upgrade_plan": "professional",
    }
    assert told.quota_subjects == ["plan:starter"]
    shown = (await quota.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT))).quota
    assert (shown.sessions_available, shown.refusal_reason) == (False, "SESSION_QUOTA_EXCEEDED")


async def test_concurrency_exceeded(quota: Client) -> None:
    await quota.PutEntitlement(entitlement_request(revision=2, concurrent=1))
    await quota.ReserveSession(reserve_request(quota.new_id()))
    told = await failure(quota.ReserveSession(reserve_request(quota.new_id())))
    assert (told.code, told.reason) == (CODE.RESOURCE_EXHAUSTED, "CONCURRENCY_LIMIT_EXCEEDED")
    assert told.metadata == {"limit": "1", "plan": "starter"}
    assert told.retry_after_s is not None
    assert told.retry_after_s > 0


@pytest.mark.parametrize(
    ("block", "code", "reason"),
    [
        (pb.BLOCK_REASON_BUDGET_EXCEEDED, CODE.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED"),
        (pb.BLOCK_REASON_PAYMENT_OVERDUE, CODE.FAILED_PRECONDITION, "PAYMENT_OVERDUE"),
        (pb.BLOCK_REASON_ACCOUNT_SUSPENDED, CODE.FAILED_PRECONDITION, "ACCOUNT_SUSPENDED"),
    ],
)
async def test_blocks(quota: Client, block: int, code: grpc.StatusCode, reason: str) -> None:
    given = pb.Block(reason=block, message="Because.")  # type: ignore[arg-type]
    await quota.PutEntitlement(entitlement_request(revision=2, block=given))
    told = await failure(quota.ReserveSession(reserve_request(quota.new_id())))
    assert (told.code, told.reason, told.message) == (code, reason, "Because.")


async def test_an_ended_subscription(quota: Client, clock: ManualClock) -> None:
    await quota.PutEntitlement(entitlement_request(revision=2, end_time=time_of(clock.now_us())))
    told = await failure(quota.ReserveSession(reserve_request(quota.new_id())))
    assert (told.code, told.reason) == (CODE.FAILED_PRECONDITION, "SUBSCRIPTION_ENDED")


async def test_a_managed_candidate_outside_the_plan(quota: Client) -> None:
    candidates = [
        type_pb2.Candidate(provider="openai", model="m", credential_mode=MANAGED),
        type_pb2.Candidate(provider="bedrock", model="m", credential_mode=MANAGED),
    ]
    told = await failure(quota.ReserveSession(reserve_request(quota.new_id(), candidates=candidates)))
    assert (told.code, told.reason) == (CODE.PERMISSION_DENIED, "BYOK_REQUIRED")
    assert told.metadata == {"provider": "bedrock", "plan": "starter"}


async def test_a_duplicate_request(quota: Client) -> None:
    session_id = quota.new_id()
    await quota.ReserveSession(reserve_request(session_id, request_id="req-1"))
    told = await failure(quota.ReserveSession(reserve_request(quota.new_id(), request_id="req-1")))
    assert (told.code, told.reason) == (CODE.ALREADY_EXISTS, "DUPLICATE_REQUEST")
    assert told.metadata == {"session_id": session_id, "session_state": "RESERVED"}


async def test_other_parameters(quota: Client) -> None:
    session_id = quota.new_id()
    await quota.ReserveSession(reserve_request(session_id))
    told = await failure(quota.ReserveSession(reserve_request(session_id, lease_duration=seconds(331))))
    assert (told.code, told.reason) == (CODE.ALREADY_EXISTS, "SESSION_PARAMETERS_DIFFER")
    await quota.CommitSession(commit_request(session_id))
    told = await failure(quota.CommitSession(commit_request(session_id, input_tokens=1)))
    assert (told.code, told.reason) == (CODE.ALREADY_EXISTS, "SESSION_PARAMETERS_DIFFER")


async def test_labels_in_another_order_are_the_same_parameters(quota: Client) -> None:
    session_id = quota.new_id()
    labels = {f"label-{number}": str(number) for number in range(16)}
    await quota.ReserveSession(reserve_request(session_id, labels=labels))
    again = await quota.ReserveSession(reserve_request(session_id, labels=dict(reversed(labels.items()))))
    assert again.replayed


async def test_resolving_twice(quota: Client) -> None:
    session_id = quota.new_id()
    await quota.ReserveSession(reserve_request(session_id))
    await quota.CommitSession(commit_request(session_id))
    told = await failure(quota.ReleaseSession(release_request(session_id)))
    assert (told.code, told.reason) == (CODE.FAILED_PRECONDITION, "SESSION_ALREADY_RESOLVED")
    assert told.metadata == {"session_id": session_id, "session_state": "COMMITTED"}


async def test_unknown_sessions(quota: Client, clock: ManualClock) -> None:
    session_id = quota.new_id()
    old = uuid7_session_id(clock.now_us() - 2 * DAY_US, 1)
    await quota.ReserveSession(reserve_request(session_id))
    for call in (
        quota.CommitSession(commit_request(quota.new_id())),
        quota.CommitSession(commit_request(session_id, OTHER)),
        quota.ReleaseSession(release_request(old)),
        quota.GetSession(pb.GetSessionRequest(account_id=ACCOUNT, session_id=quota.new_id())),
        quota.GetSession(pb.GetSessionRequest(account_id=OTHER, session_id=session_id)),
    ):
        told = await failure(call)
        assert (told.code, told.reason) == (CODE.NOT_FOUND, "SESSION_NOT_FOUND")


async def test_a_session_id_from_yesterday(quota: Client, clock: ManualClock) -> None:
    for made_us in (clock.now_us() - DAY_US - 1000, clock.now_us() + DAY_US + 1000):
        told = await failure(quota.ReserveSession(reserve_request(uuid7_session_id(made_us, 1))))
        assert (told.code, told.reason, told.fields) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST", ["session_id"])


GOOD_ID = uuid7_session_id(us(2026, 3, 10, 12), 424242)


def nameless(count: int) -> list[type_pb2.Candidate]:
    return [type_pb2.Candidate(provider="p", model="m", credential_mode=BYOK) for _ in range(count)]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (reserve_request("ses_1"), "session_id"),
        (reserve_request(GOOD_ID.upper()), "session_id"),
        (reserve_request(GOOD_ID + "\n"), "session_id"),
        (reserve_request(GOOD_ID, ""), "account_id"),
        (reserve_request(GOOD_ID, "acct_"), "account_id"),
        (reserve_request(GOOD_ID, "acct_one\n"), "account_id"),
        (reserve_request(GOOD_ID, "acct_one two"), "account_id"),
        (reserve_request(GOOD_ID, "acct_" + "x" * 59), "account_id"),
        (reserve_request(GOOD_ID, candidates=[]), "candidates"),
        (reserve_request(GOOD_ID, candidates=nameless(17)), "candidates"),
        (
            reserve_request(GOOD_ID, candidates=[*nameless(1), type_pb2.Candidate(model="m", credential_mode=BYOK)]),
            "candidates[1].provider",
        ),
        (
            reserve_request(GOOD_ID, candidates=[type_pb2.Candidate(provider="p", model="m")]),
            "candidates[0].credential_mode",
        ),
        (
            reserve_request(GOOD_ID, candidates=[type_pb2.Candidate(provider="p", model="m", credential_mode=9)]),  # type: ignore[arg-type]
            "candidates[0].credential_mode",
        ),
        (reserve_request(GOOD_ID, lease_duration=seconds(0)), "lease_duration"),
        (reserve_request(GOOD_ID, lease_duration=seconds(-5)), "lease_duration"),
        (reserve_request(GOOD_ID, lease_duration=seconds(3_601)), "lease_duration"),
        (reserve_request(GOOD_ID, lease_duration=seconds(10**17)), "lease_duration"),
        (reserve_request(GOOD_ID, request_id=""), "request_id"),
        (reserve_request(GOOD_ID, request_id="x" * 129), "request_id"),
        (reserve_request(GOOD_ID, request_id="\u00e9" * 65), "request_id"),
        (reserve_request(GOOD_ID, api_key_id="x" * 65), "api_key_id"),
        (reserve_request(GOOD_ID, labels={str(n): "" for n in range(17)}), "labels"),
        (reserve_request(GOOD_ID, labels={"secret-key" * 9: ""}), "labels"),
        (reserve_request(GOOD_ID, labels={"k": "secret-value" * 30}), "labels"),
    ],
)
async def test_malformed_reserves(quota: Client, request_: pb.ReserveSessionRequest, field: str) -> None:
    told = await failure(quota.ReserveSession(request_))
    assert (told.code, told.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert told.fields == [field]
    assert "secret" not in told.message, "violations name fields, never values"
    shown = (await quota.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT))).quota
    assert (shown.sessions_reserved, shown.sessions_remaining) == (0, 10)


async def test_every_violation_is_named(quota: Client) -> None:
    told = await failure(quota.ReserveSession(pb.ReserveSessionRequest()))
    assert set(told.fields) == {"account_id", "session_id", "candidates"}


async def test_malformed_resolutions(quota: Client) -> None:
    missing = pb.CommitSessionRequest(account_id=ACCOUNT, session_id=GOOD_ID)
    assert (await failure(quota.CommitSession(missing))).fields == ["outcome"]
    negative = commit_request(GOOD_ID, input_tokens=-1)
    assert (await failure(quota.CommitSession(negative))).fields == ["outcome.input_tokens"]
    no_reason = pb.ReleaseSessionRequest(account_id=ACCOUNT, session_id=GOOD_ID)
    assert (await failure(quota.ReleaseSession(no_reason))).fields == ["reason"]
    no_known_reason = pb.ReleaseSessionRequest(account_id=ACCOUNT, session_id=GOOD_ID, reason=99)  # type: ignore[arg-type]
    assert (await failure(quota.ReleaseSession(no_known_reason))).fields == ["reason"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda e: e.ClearField("period_anchor_time"), "entitlement.period_anchor_time"),
        (lambda e: e.ClearField("terms"), "entitlement.terms"),
        (lambda e: e.terms.extend([e.terms[0]] * 16), "entitlement.terms"),
        (lambda e: e.terms.append(e.terms[0]), "entitlement.terms"),
        (lambda e: setattr(e, "revision", 0), "entitlement.revision"),
        (lambda e: setattr(e, "subscription_id", ""), "entitlement.subscription_id"),
        (lambda e: setattr(e.terms[0], "session_limit", -1), "entitlement.terms[0].session_limit"),
        (lambda e: e.terms[0].managed_providers.append("openai"), "entitlement.terms[0].managed_providers"),
        (lambda e: e.block.CopyFrom(pb.Block(message="x")), "entitlement.block.reason"),
        (lambda e: e.period_anchor_time.CopyFrom(Timestamp(seconds=-1)), "entitlement.period_anchor_time"),
        (lambda e: e.period_anchor_time.CopyFrom(Timestamp(seconds=2**62)), "entitlement.period_anchor_time"),
        (lambda e: e.end_time.CopyFrom(Timestamp(seconds=1, nanos=-1)), "entitlement.end_time"),
        (
            lambda e: e.terms[0].effective_time.CopyFrom(Timestamp(seconds=253_402_300_800)),
            "entitlement.terms.effective_time",
        ),
    ],
)
async def test_malformed_entitlements(quota: Client, change, field: str) -> None:
    request = entitlement_request(revision=2)
    change(request.entitlement)
    told = await failure(quota.PutEntitlement(request))
    assert (told.code, told.reason, told.fields) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST", [field])
    read = await quota.GetEntitlement(pb.GetEntitlementRequest(account_id=ACCOUNT))
    assert read.entitlement.revision == 1


async def test_nothing_at_all_to_put(quota: Client) -> None:
    assert (await failure(quota.PutEntitlement(pb.PutEntitlementRequest()))).fields == ["entitlement"]


async def test_far_but_possible_times_keep_the_account_working(quota: Client) -> None:
    request = entitlement_request(OTHER)
    far = Timestamp(seconds=us(8997, 1, 1) // 1_000_000)
    request.entitlement.end_time.CopyFrom(far)
    request.entitlement.terms.add(effective_time=far, plan_id="far", session_limit=1)
    await quota.PutEntitlement(request)
    answer = await quota.ReserveSession(reserve_request(quota.new_id(), OTHER))
    assert answer.quota.sessions_reserved == 1
