"""Each RPC of quota is cancelled at every step of the loop: what was decided stands, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from tests.simulation.hosts import METADATA
from tests.simulation.lone_quota import LoneQuota, lone_quota
from tests.simulation.oracle import COMMITTED, RELEASED, RESERVED
from tests.support.figures import record
from tests.support.quota import uuid7_session_id

ACCOUNT = "acct_a"
LIMIT = 5
STEPS_MAX = 400
SETTLES_S = 3.0
BYOK = type_pb2.CREDENTIAL_MODE_BYOK

Call = Callable[[Any, "Requests"], Coroutine[Any, Any, None]]


class Requests:
    """The requests of one world: about a session that runs, and about one that is new."""

    def __init__(self, world: LoneQuota) -> None:
        self.running = uuid7_session_id(world.around.start_us, 1)
        self.new = uuid7_session_id(world.around.start_us, 2)

    def reserve(self, session_id: str) -> pb.ReserveSessionRequest:
        """Reserves."""
        candidates = [type_pb2.Candidate(provider="openai", model="m", credential_mode=BYOK)]
        return pb.ReserveSessionRequest(account_id=ACCOUNT, session_id=session_id, candidates=candidates)

    def commit(self, session_id: str) -> pb.CommitSessionRequest:
        """Commits."""
        outcome = type_pb2.SessionOutcome(served_credential_mode=BYOK)
        return pb.CommitSessionRequest(account_id=ACCOUNT, session_id=session_id, outcome=outcome)

    def release(self, session_id: str) -> pb.ReleaseSessionRequest:
        """Releases."""
        reason = type_pb2.RELEASE_REASON_CLIENT_CANCELLED
        return pb.ReleaseSessionRequest(account_id=ACCOUNT, session_id=session_id, reason=reason)


async def reserve(stub: Any, requests: Requests) -> None:
    await stub.ReserveSession(requests.reserve(requests.new), metadata=METADATA)


async def commit(stub: Any, requests: Requests) -> None:
    await stub.CommitSession(requests.commit(requests.running), metadata=METADATA)


async def release(stub: Any, requests: Requests) -> None:
    await stub.ReleaseSession(requests.release(requests.running), metadata=METADATA)


async def release_of_an_unknown_session(stub: Any, requests: Requests) -> None:
    await stub.ReleaseSession(requests.release(requests.new), metadata=METADATA)


async def execute(stub: Any, requests: Requests) -> None:
    call = stub.ExecuteCommands(metadata=METADATA)
    try:
        commands = [
            pb.SessionCommand(sequence=1, reserve=requests.reserve(requests.new)),
            pb.SessionCommand(sequence=2, commit=requests.commit(requests.running)),
        ]
        await call.write(pb.ExecuteCommandsRequest(commands=commands))
        async for response in call:
            assert len(response.results) == 2
            return
    finally:
        call.cancel()


async def get_session(stub: Any, requests: Requests) -> None:
    await stub.GetSession(pb.GetSessionRequest(account_id=ACCOUNT, session_id=requests.running), metadata=METADATA)


async def get_quota(stub: Any, _: Requests) -> None:
    await stub.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT), metadata=METADATA)


async def get_entitlement(stub: Any, _: Requests) -> None:
    await stub.GetEntitlement(pb.GetEntitlementRequest(account_id=ACCOUNT), metadata=METADATA)


async def put_entitlement(stub: Any, _: Requests) -> None:
    stored = await stub.GetEntitlement(pb.GetEntitlementRequest(account_id=ACCOUNT), metadata=METADATA)
    await stub.PutEntitlement(pb.PutEntitlementRequest(entitlement=stored.entitlement), metadata=METADATA)


async def watch(stub: Any, _: Requests) -> None:
    call = stub.WatchQuota(pb.WatchQuotaRequest(account_id=ACCOUNT), metadata=METADATA)
    try:
        async for _response in call:
            return
    finally:
        call.cancel()


async def follow_events(stub: Any, _: Requests) -> None:
    positions = [pb.PartitionPosition(partition=partition) for partition in range(4)]
    call = stub.ReadSessionEvents(pb.ReadSessionEventsRequest(positions=positions, follow=True), metadata=METADATA)
    try:
        async for _response in call:
            return
    finally:
        call.cancel()


async def acknowledge(stub: Any, _: Requests) -> None:
    request = pb.AcknowledgeSessionEventsRequest(positions=[pb.PartitionPosition(partition=3)])
    await stub.AcknowledgeSessionEvents(request, metadata=METADATA)


CALLS: list[Call] = [
    reserve,
    commit,
    release,
    release_of_an_unknown_session,
    execute,
    get_session,
    get_quota,
    get_entitlement,
    put_entitlement,
    watch,
    follow_events,
    acknowledge,
]


@pytest.mark.parametrize("disorder", [0.0, 1.0], ids=["in-order", "any-order"])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_cancelled_at_every_step(call: Call, disorder: float) -> None:
    step = 0
    while not cancelled_at(call, step, disorder):
        step += 1
        assert step < STEPS_MAX
    record("cancellation", rpc=call.__name__, steps=step, leaks=0)
    assert step > 5, "the call was over before it could be cancelled"


def cancelled_at(call: Call, step: int, disorder: float) -> bool:
    """Cancels after so many steps; True where the call was over by then."""
    with lone_quota(step, disorder) as world:
        requests = Requests(world)
        over: list[bool] = []
        world.run(scenario(world, call, requests, step, over))
        return over[0]


async def scenario(world: LoneQuota, call: Call, requests: Requests, step: int, over: list[bool]) -> None:
    """A session runs; a call is made and cancelled; whatever became of it, everything can be brought to its end."""
    caller, other = world.life("caller"), world.life("other")
    stub = world.stub(other)
    await world.plans.put(ACCOUNT, limit=LIMIT, plain=True)
    world.oracle.commits_begun |= {(ACCOUNT, requests.running), (ACCOUNT, requests.new)}
    await stub.ReserveSession(requests.reserve(requests.running), metadata=METADATA)
    await asyncio.sleep(SETTLES_S)
    assert world.quota.life is not None
    before = world.loop.unfinished(world.quota.life)

    task = caller.start(call(world.stub(caller), requests))
    world.loop.before_step(world.loop.steps + 1 + step, task.cancel)
    await asyncio.wait((task,))
    over.append(not task.cancelled())
    if not task.cancelled():
        task.result()
    await asyncio.sleep(SETTLES_S)

    assert world.loop.unfinished(world.quota.life) == before, "a task is left at quota"
    assert world.loop.unfinished(caller) == [], "a task is left at the caller"
    await everything_ends(world, stub, requests)


async def everything_ends(world: LoneQuota, stub: Any, requests: Requests) -> None:
    """Quota goes on, and no unit is held but by what was decided."""
    states = {key[1]: row.state for key, row in world.oracle.sessions.items()}
    assert states[requests.running] in (RESERVED, COMMITTED, RELEASED)
    assert states.get(requests.new) in (None, RESERVED, RELEASED)
    for session_id, state in states.items():
        if state == RESERVED:
            await stub.ReleaseSession(requests.release(session_id), metadata=METADATA)
    response = await stub.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT), metadata=METADATA)
    committed = sum(row.state == COMMITTED for row in world.oracle.sessions.values())
    assert response.quota.sessions_reserved == 0
    assert response.quota.sessions_remaining == LIMIT - committed
