"""Requests as a client writes them, and errors as a client reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2
from google.protobuf import message_factory
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from tests.support.quota import ACCOUNT, ANCHOR_US, CREDENTIALS, SERVICE

NAME = SERVICE.full_name
METHODS = [method.name for method in SERVICE.methods]
BYOK = type_pb2.CREDENTIAL_MODE_BYOK
MANAGED = type_pb2.CREDENTIAL_MODE_MANAGED


def time_of(time_us: int) -> Timestamp:
    """A Timestamp."""
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1000)


def reserve_request(session_id: str, account_id: str = ACCOUNT, **fields: Any) -> pb.ReserveSessionRequest:
    """A reserve with one candidate of the caller's own key, where the fields say nothing else."""
    candidates = fields.pop("candidates", [type_pb2.Candidate(provider="openai", model="m", credential_mode=BYOK)])
    return pb.ReserveSessionRequest(account_id=account_id, session_id=session_id, candidates=candidates, **fields)


def commit_request(session_id: str, account_id: str = ACCOUNT, **fields: Any) -> pb.CommitSessionRequest:
    """A commit of a session that stopped by itself."""
    outcome = type_pb2.SessionOutcome(finish_reason=type_pb2.FINISH_REASON_STOP, served_credential_mode=BYOK, **fields)
    return pb.CommitSessionRequest(account_id=account_id, session_id=session_id, outcome=outcome)


def release_request(session_id: str, account_id: str = ACCOUNT) -> pb.ReleaseSessionRequest:
    """A release because the provider failed."""
    return pb.ReleaseSessionRequest(
        account_id=account_id, session_id=session_id, reason=type_pb2.RELEASE_REASON_PROVIDER_FAILED
    )


def entitlement_request(
    account_id: str = ACCOUNT, *, limit: int = 10, revision: int = 1, concurrent: int = 1_000, **fields: Any
) -> pb.PutEntitlementRequest:
    """An entitlement of one term from the builders' anchor on."""
    return pb.PutEntitlementRequest(
        entitlement=pb.Entitlement(
            account_id=account_id,
            revision=revision,
            subscription_id="sub_1",
            period_anchor_time=time_of(ANCHOR_US),
            terms=[
                pb.EntitlementTerm(
                    effective_time=time_of(ANCHOR_US),
                    plan_id="starter",
                    session_limit=limit,
                    managed_providers=["openai"],
                    max_concurrent_sessions=concurrent,
                    max_output_tokens=4_096,
                    max_tool_rounds=25,
                    upgrade_plan_id="professional",
                )
            ],
            **fields,
        )
    )


def seconds(count: int) -> Duration:
    """A Duration."""
    return Duration(seconds=count)


@dataclass(frozen=True)
class Failure:
    """What a failed call told its client."""

    code: grpc.StatusCode
    reason: str
    metadata: dict[str, str]
    message: str
    fields: list[str]
    """Of BadRequest."""
    quota_subjects: list[str]
    """Of QuotaFailure."""
    retry_after_s: float | None
    """Of RetryInfo."""


def failure_of_status(status: Status) -> Failure:
    """Reads google.rpc.Status, which every error of ours is."""
    info, bad, quota = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.QuotaFailure()
    retry, has_retry = error_details_pb2.RetryInfo(), False
    for detail in status.details:
        for message in (info, bad, quota):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
        if detail.Is(retry.DESCRIPTOR):
            has_retry = detail.Unpack(retry)
    assert info.domain == "flowstack", status
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    return Failure(
        code,
        info.reason,
        dict(info.metadata),
        status.message,
        [violation.field for violation in bad.field_violations],
        [violation.subject for violation in quota.violations],
        retry.retry_delay.ToTimedelta().total_seconds() if has_retry else None,
    )


def failure_of(error: grpc.RpcError) -> Failure:
    """Reads a failed call."""
    status = rpc_status.from_call(error)
    assert status is not None, f"an error without details: {error!r}"
    failure = failure_of_status(status)
    assert error.code() is failure.code
    return failure


async def failure(call: Any) -> Failure:
    """The failure that a call of any kind has to end with."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return failure_of(error)
    raise AssertionError("the call went well")


def _bytes(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def call_raw(
    channel: grpc.aio.Channel,
    method: str,
    request: Any = b"",
    *,
    metadata: tuple[tuple[str, str], ...] = CREDENTIALS,
    timeout: float | None = 30,
) -> Any:
    """Calls any method of the service with raw bytes, one request where requests stream."""
    descriptor = SERVICE.methods_by_name[method]
    path = f"/{NAME}/{method}"
    decode: Callable[[bytes], Any] = message_factory.GetMessageClass(descriptor.output_type).FromString
    arguments = {"request_serializer": _bytes, "response_deserializer": decode}
    if descriptor.client_streaming:

        async def requests() -> AsyncIterator[Any]:
            yield request

        return channel.stream_stream(path, **arguments)(requests(), metadata=metadata, timeout=timeout)
    if descriptor.server_streaming:
        return channel.unary_stream(path, **arguments)(request, metadata=metadata, timeout=timeout)
    return channel.unary_unary(path, **arguments)(request, metadata=metadata, timeout=timeout)
