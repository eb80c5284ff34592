"""ExecuteCommands: batches on one stream, each command answered once, by its sequence."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable

import grpc
import pytest
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from tests.grpc.quota.conftest import Client
from tests.grpc.quota.wire import (
    Failure,
    commit_request,
    entitlement_request,
    failure,
    failure_of,
    failure_of_status,
    release_request,
    reserve_request,
)
from tests.support.quota import ACCOUNT, CREDENTIALS, OTHER, QuotaServer

CODE = grpc.StatusCode

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def reserve_command(sequence: int, session_id: str, account_id: str = ACCOUNT) -> pb.SessionCommand:
    return pb.SessionCommand(sequence=sequence, reserve=reserve_request(session_id, account_id))


def batch(commands: Iterable[pb.SessionCommand]) -> pb.ExecuteCommandsRequest:
    return pb.ExecuteCommandsRequest(commands=commands)


async def stream_of(*requests: pb.ExecuteCommandsRequest) -> AsyncIterator[pb.ExecuteCommandsRequest]:
    for request in requests:
        yield request


async def results_of(quota: Client, *requests: pb.ExecuteCommandsRequest) -> list[pb.SessionCommandResult]:
    """All results of a stream that is half-closed after `requests`."""
    call = quota.ExecuteCommands(stream_of(*requests))
    return [result async for response in call for result in response.results]


def refusal(result: pb.SessionCommandResult) -> Failure:
    assert result.WhichOneof("result") == "error", result
    return failure_of_status(result.error)


@pytest.mark.parametrize("view", [pb.SESSION_VIEW_UNSPECIFIED, pb.SESSION_VIEW_FULL, 77])
async def test_a_result_holds_the_whole_session_unless_less_is_asked_for(quota: Client, view: pb.SessionView) -> None:
    session_id = quota.new_id()
    request = pb.ExecuteCommandsRequest(commands=[reserve_command(1, session_id)], session_view=view)
    (result,) = await results_of(quota, request)
    unary = await quota.GetSession(pb.GetSessionRequest(account_id=ACCOUNT, session_id=session_id))
    assert result.reserve.session == unary.session


async def test_a_brief_result_holds_the_id_and_the_state_of_the_session_and_the_whole_quota(quota: Client) -> None:
    session_id = quota.new_id()
    commands = [reserve_command(1, session_id), pb.SessionCommand(sequence=2, commit=commit_request(session_id))]
    request = pb.ExecuteCommandsRequest(commands=commands, session_view=pb.SESSION_VIEW_BASIC)
    reserved, committed = await results_of(quota, request)
    state = type_pb2.SESSION_STATE_RESERVED
    assert reserved.reserve.session == type_pb2.Session(session_id=session_id, state=state)
    state = type_pb2.SESSION_STATE_COMMITTED
    assert committed.commit.session == type_pb2.Session(session_id=session_id, state=state)
    response = await quota.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT))
    assert committed.commit.quota == response.quota


async def test_a_batch_of_every_command(quota: Client) -> None:
    first, second, third = quota.new_id(), quota.new_id(), quota.new_id()
    found = await results_of(
        quota,
        batch(
            [
                reserve_command(10, first),
                reserve_command(20, second),
                pb.SessionCommand(sequence=30, commit=commit_request(first)),
                pb.SessionCommand(sequence=40, release=release_request(second)),
                pb.SessionCommand(sequence=50, release=release_request(third)),
                reserve_command(2**64 - 1, third),
            ]
        ),
    )
    results = {result.sequence: result for result in found}
    assert len(found) == len(results) == 6
    assert [results[n].WhichOneof("result") for n in (10, 20, 30, 40, 50)] == [
        "reserve",
        "reserve",
        "commit",
        "release",
        "release",
    ]
    assert results[10].reserve.session.session_id == first
    assert results[20].reserve.quota.sessions_reserved == 2
    assert results[30].commit.session.session_id == first
    assert results[40].release.session.session_id == second
    assert refusal(results[2**64 - 1]).reason == "SESSION_ALREADY_RESOLVED"
    shown = (await quota.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT))).quota
    assert (shown.sessions_committed, shown.sessions_reserved) == (1, 0)


async def test_an_error_in_a_batch_is_the_unary_methods_error(quota: Client) -> None:
    await quota.PutEntitlement(entitlement_request(revision=2, limit=0))
    command = reserve_request(quota.new_id())
    unary = await failure(quota.ReserveSession(command))
    (result,) = await results_of(quota, batch([pb.SessionCommand(sequence=1, reserve=command)]))
    assert refusal(result) == unary
    assert unary.reason == "SESSION_QUOTA_EXCEEDED"


async def test_one_bad_command_of_10000_fails_alone(quota: Client) -> None:
    await quota.PutEntitlement(entitlement_request(revision=2, limit=20_000, concurrent=20_000))
    commands = [reserve_command(number, quota.new_id()) for number in range(10_000)]
    commands[4_321].reserve.session_id = "ses_nonsense"
    found = await results_of(quota, batch(commands))
    assert sorted(result.sequence for result in found) == list(range(10_000))
    bad = [result for result in found if result.WhichOneof("result") == "error"]
    assert [result.sequence for result in bad] == [4_321]
    assert (refusal(bad[0]).reason, refusal(bad[0]).fields) == ("INVALID_REQUEST", ["reserve.session_id"])
    by_sequence = {result.sequence: result.reserve.session.session_id for result in found}
    sent = {command.sequence: command.reserve.session_id for command in commands}
    del sent[4_321], by_sequence[4_321]
    assert by_sequence == sent
    shown = (await quota.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT))).quota
    assert shown.sessions_reserved == 9_999


async def test_commands_that_break_a_rule(quota: Client) -> None:
    found = await results_of(
        quota,
        batch(
            [
                pb.SessionCommand(sequence=1),
                pb.SessionCommand(sequence=2, reserve=pb.ReserveSessionRequest()),
                pb.SessionCommand(sequence=3, commit=pb.CommitSessionRequest(account_id=ACCOUNT)),
                reserve_command(4, quota.new_id()),
                reserve_command(5, quota.new_id(), OTHER),
            ]
        ),
    )
    results = {result.sequence: result for result in found}
    assert [refusal(results[n]).reason for n in (1, 2, 3)] == ["INVALID_REQUEST"] * 3
    assert set(refusal(results[3]).fields) == {"commit.session_id", "commit.outcome"}
    assert results[4].WhichOneof("result") == "reserve"
    assert refusal(results[5]).reason == "ENTITLEMENT_MISSING"


async def test_over_10000_commands_end_the_stream(quota: Client) -> None:
    commands = [reserve_command(number, quota.new_id()) for number in range(10_001)]
    told = await failure(quota.ExecuteCommands(stream_of(batch(commands))))
    assert (told.code, told.reason, told.fields) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST", ["commands"])
    shown = (await quota.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT))).quota
    assert shown.sessions_reserved == 0


async def test_an_empty_batch_is_answered_and_harmless(quota: Client) -> None:
    found = await results_of(quota, batch([]), batch([reserve_command(7, quota.new_id())]))
    assert [result.sequence for result in found] == [7]


async def test_a_half_close_is_answered_in_full(quota: Client) -> None:
    await quota.PutEntitlement(entitlement_request(revision=2, limit=5_000, concurrent=5_000))
    batches = [batch(reserve_command(100 * b + n, quota.new_id()) for n in range(100)) for b in range(20)]
    found = await results_of(quota, *batches)
    assert Counter(result.WhichOneof("result") for result in found) == {"reserve": 2_000}
    assert sorted(result.sequence for result in found) == list(range(2_000))


async def test_answers_come_while_the_stream_is_open(quota: Client) -> None:
    call = quota.ExecuteCommands()
    for number in range(5):
        await call.write(batch([reserve_command(number, quota.new_id())]))
        response = await call.read()
        assert [result.sequence for result in response.results] == [number]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is CODE.OK


async def test_commands_of_one_account_are_decided_in_order_across_batches(quota: Client) -> None:
    await quota.PutEntitlement(entitlement_request(revision=2, limit=1))
    ids = [quota.new_id() for _ in range(50)]
    requests = []
    for number, session_id in enumerate(ids):
        requests.append(batch([reserve_command(2 * number, session_id)]))
        release = pb.SessionCommand(sequence=2 * number + 1, release=release_request(session_id))
        requests.append(batch([release]))
    found = await results_of(quota, *requests)
    assert Counter(result.WhichOneof("result") for result in found) == {"reserve": 50, "release": 50}
    assert not any(result.release.replayed for result in found)


async def test_a_client_that_leaves_gets_its_commands_decided(quota: Client, server: QuotaServer) -> None:
    session_id = quota.new_id()
    call = quota.ExecuteCommands()
    await call.write(batch([reserve_command(1, session_id)]))
    await call.read()
    call.cancel()
    again = await quota.ReserveSession(reserve_request(session_id))
    assert again.replayed


async def test_streams_do_not_mix_their_sequences(quota: Client) -> None:
    async def run(stream: int) -> None:
        mine = {number: quota.new_id() for number in range(50)}
        found = await results_of(
            quota, *(batch([reserve_command(number, session_id)]) for number, session_id in mine.items())
        )
        assert {result.sequence: result.reserve.session.session_id for result in found} == mine

    await quota.PutEntitlement(entitlement_request(revision=2, limit=1_000))
    await asyncio.gather(*(run(stream) for stream in range(8)))


async def test_a_garbled_message_ends_the_stream_with_a_reason(channel: grpc.aio.Channel, quota: Client) -> None:
    method = channel.stream_stream("/flowstack.quota.v1.QuotaService/ExecuteCommands")

    async def raw(*messages: bytes) -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    good = batch([reserve_command(1, quota.new_id())]).SerializeToString()
    for messages in ((b"\xff\xff\xff",), (good, b"\x0a\x80"), (b"\x0a\xff\xff\xff\xff\x0f",)):
        told = await failure(method(raw(*messages), metadata=CREDENTIALS, timeout=30))
        assert (told.code, told.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_random_bytes_never_break_the_stream_without_a_reason(channel: grpc.aio.Channel, quota: Client) -> None:
    method = channel.stream_stream("/flowstack.quota.v1.QuotaService/ExecuteCommands")
    dice = random.Random(20_260_310)

    async def raw(message: bytes) -> AsyncIterator[bytes]:
        yield message

    for _ in range(100):
        call = method(raw(dice.randbytes(dice.randrange(1, 40))), metadata=CREDENTIALS, timeout=30)
        try:
            async for _ in call:
                pass
        except grpc.aio.AioRpcError as error:
            assert failure_of(error).reason == "INVALID_REQUEST"  # bytes that decode are well


@pytest.mark.parametrize("size", [4 * 1024 * 1024 + 1, 15 * 1024 * 1024])
async def test_an_oversized_batch_ends_the_stream_with_a_reason(server: QuotaServer, quota: Client, size: int) -> None:
    command = reserve_command(1, quota.new_id())
    command.reserve.labels["k"] = "x" * size
    async with grpc.aio.insecure_channel(server.address, options=UNLIMITED) as wide:
        method = wide.stream_stream("/flowstack.quota.v1.QuotaService/ExecuteCommands")
        call = method(stream_of(batch([command]).SerializeToString()), metadata=CREDENTIALS, timeout=30)  # type: ignore[arg-type]
        told = await failure(call)
    assert (told.code, told.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_results_fit_the_messages_that_every_client_takes(quota: Client, server: QuotaServer) -> None:
    # gRPC's clients take 4 MiB in a message by default; a batch's results are larger than its commands.
    await quota.PutEntitlement(entitlement_request(revision=2, limit=20_000, concurrent=20_000))
    ids = [quota.new_id() for _ in range(500)]
    labels = {f"{n:064}": "x" * 256 for n in range(16)}
    for start in range(0, len(ids), 100):
        commands = []
        for session_id in ids[start : start + 100]:
            commands.append(reserve_command(len(commands), session_id))
            commands[-1].reserve.labels.update(labels)
        await results_of(quota, batch(commands))
    releases = [
        pb.SessionCommand(sequence=n, release=release_request(session_id)) for n, session_id in enumerate(ids * 4)
    ]
    found = await results_of(quota, batch(releases))
    assert sorted(result.sequence for result in found) == list(range(2_000))
