"""Calls are atomic: every recorded history has a sequence, and what has none is rejected."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2
from google.protobuf.duration_pb2 import Duration

from services.shared.errors import FlowStackError, Reason
from services.shared.status import error_from_rpc
from tests.simulation.hosts import METADATA
from tests.simulation.lone_quota import LoneQuota, lone_quota
from tests.simulation.oracle import Oracle
from tests.simulation.quota_host import Disk
from tests.support.figures import record
from tests.support.linearizability import UNKNOWN, History, Operation, is_linearizable
from tests.support.planted import planted
from tests.support.quota import CREDENTIALS, entitlement, quota_server, stub, uuid7_session_id

ACCOUNT = "acct_one"
LIMIT = 3
EXCEEDED = Reason.SESSION_QUOTA_EXCEEDED.value
RESOLVED = Reason.SESSION_ALREADY_RESOLVED.value
BYOK = type_pb2.CREDENTIAL_MODE_BYOK

Line = tuple[str, str, int, int, str]
"""Kind, session, invocation, answer, result."""


def history(*lines: Line) -> list[Operation]:
    """A history as it would have been recorded."""
    return [Operation(kind, ACCOUNT, session, begun, ended, result) for kind, session, begun, ended, result in lines]


ATOMIC: dict[str, Sequence[Line]] = {
    "one after another": (
        ("reserve", "a", 0, 1, "ok"),
        ("release", "a", 2, 3, "ok"),
        ("reserve", "b", 4, 5, "ok"),
        ("commit", "b", 6, 7, "ok"),
        ("reserve", "c", 8, 9, EXCEEDED),
    ),
    "a denial beside the release that would have made room": (
        ("reserve", "a", 0, 1, "ok"),
        ("release", "a", 2, 5, "ok"),
        ("reserve", "b", 3, 4, EXCEEDED),
    ),
    "a grant beside the release that made room": (
        ("reserve", "a", 0, 1, "ok"),
        ("reserve", "b", 2, 5, "ok"),
        ("release", "a", 3, 4, "ok"),
    ),
    "a release that overtakes its reserve": (
        ("reserve", "a", 0, 5, RESOLVED),
        ("release", "a", 1, 2, "ok"),
    ),
    "an unanswered reserve that took the unit long after": (
        ("reserve", "a", 0, 1, UNKNOWN),
        ("reserve", "b", 2, 3, "ok"),
        ("release", "b", 4, 5, "ok"),
        ("reserve", "c", 6, 7, EXCEEDED),
    ),
    "an unanswered reserve that never was": (
        ("reserve", "a", 0, 1, UNKNOWN),
        ("reserve", "b", 2, 3, "ok"),
        ("commit", "b", 4, 5, "ok"),
    ),
}

PLANTED: dict[str, Sequence[Line]] = {
    "two grants of the last unit": (("reserve", "a", 0, 3, "ok"), ("reserve", "b", 1, 2, "ok")),
    "a denial after the unit had come back": (
        ("reserve", "a", 0, 1, "ok"),
        ("release", "a", 2, 3, "ok"),
        ("reserve", "b", 4, 5, EXCEEDED),
    ),
    "a grant that is not remembered": (("reserve", "a", 0, 1, "ok"), ("reserve", "a", 2, 3, "ok")),
    "both ends of one session": (
        ("reserve", "a", 0, 1, "ok"),
        ("commit", "a", 2, 5, "ok"),
        ("release", "a", 3, 4, "ok"),
    ),
    "a commit of what was never reserved": (("commit", "a", 0, 1, "ok"),),
    "a reserve granted after its release was answered": (
        ("release", "a", 0, 1, "ok"),
        ("reserve", "a", 2, 3, "ok"),
    ),
    "a unit that comes back after it was counted": (
        ("reserve", "a", 0, 1, "ok"),
        ("commit", "a", 2, 3, "ok"),
        ("reserve", "b", 4, 5, "ok"),
    ),
}


@pytest.mark.parametrize("name", ATOMIC)
def test_a_history_with_a_sequence_is_accepted(name: str) -> None:
    assert is_linearizable(history(*ATOMIC[name]), limit=1)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_history_is_rejected(name: str) -> None:
    assert not is_linearizable(history(*PLANTED[name]), limit=1)


class Caller:
    """Calls quota's unary methods and records what came of it."""

    def __init__(self, methods: Any, recorded: History, metadata: Any, timeout_s: float) -> None:
        self._methods = methods
        self._recorded = recorded
        self._metadata = metadata
        self._timeout_s = timeout_s

    async def work(self, draw: random.Random, ids: Sequence[str], calls: int) -> None:
        """Calls at random, about sessions that others call about too."""
        for _ in range(calls):
            kind = draw.choice(("reserve", "reserve", "commit", "release"))
            try:
                await self._call(kind, draw.choice(ids))
            except FlowStackError:
                pass  # it is in the history

    async def _call(self, kind: str, session_id: str) -> None:
        async with self._recorded.recorded(kind, ACCOUNT, session_id) as operation:
            try:
                answer = await getattr(self, f"_{kind}")(session_id)
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) or FlowStackError(Reason.QUOTA_UNAVAILABLE, "no answer") from None
            operation.result = "replayed" if kind == "reserve" and answer.replayed else "ok"

    def _reserve(self, session_id: str) -> Any:
        request = pb.ReserveSessionRequest(
            account_id=ACCOUNT,
            session_id=session_id,
            candidates=[type_pb2.Candidate(provider="openai", model="m", credential_mode=BYOK)],
            lease_duration=Duration(seconds=3600),
        )
        return self._methods.ReserveSession(request, metadata=self._metadata, timeout=self._timeout_s)

    def _commit(self, session_id: str) -> Any:
        outcome = type_pb2.SessionOutcome(served_credential_mode=BYOK)
        request = pb.CommitSessionRequest(account_id=ACCOUNT, session_id=session_id, outcome=outcome)
        return self._methods.CommitSession(request, metadata=self._metadata, timeout=self._timeout_s)

    def _release(self, session_id: str) -> Any:
        request = pb.ReleaseSessionRequest(
            account_id=ACCOUNT, session_id=session_id, reason=type_pb2.RELEASE_REASON_CLIENT_CANCELLED
        )
        return self._methods.ReleaseSession(request, metadata=self._metadata, timeout=self._timeout_s)


@pytest.mark.parametrize("seed", range(8))
async def test_real_concurrent_histories(seed: int, tmp_path: Path) -> None:
    """Eight clients on connections of their own, against the real server."""
    async with quota_server(tmp_path) as server:
        await server.store.put_entitlement(entitlement(ACCOUNT, limit=LIMIT))
        recorded = History()
        ids = [uuid7_session_id(server.clock.now_us(), number) for number in range(8)]
        options = (("grpc.use_local_subchannel_pool", 1),)
        channels = [grpc.aio.insecure_channel(server.address, options=options) for _ in range(8)]
        callers = [Caller(stub(channel), recorded, CREDENTIALS, 30) for channel in channels]
        draws = [random.Random(f"{seed} {number}") for number in range(len(callers))]
        await asyncio.gather(*(caller.work(draw, ids, 8) for caller, draw in zip(callers, draws, strict=True)))
        for channel in channels:
            await channel.close()
    assert is_overlapping(recorded.operations)
    assert is_linearizable(recorded.operations, LIMIT), recorded.operations


def is_overlapping(operations: Sequence[Operation]) -> bool:
    """Whether any two calls were under way at the same time: a history without that shows nothing."""
    ordered = sorted(operations, key=lambda operation: operation.invoked)
    return any(
        earlier.answered is not None and later.invoked < earlier.answered
        for earlier, later in itertools.pairwise(ordered)
    )


class DeafOracle(Oracle):
    """Leaves it to the history to tell."""

    def fail(self, text: str) -> None:
        """Nothing."""


def simulated_history(seed: int, oracle: type[Oracle] = Oracle) -> list[Operation]:
    """What clients saw of a quota whose connections break and that is killed, in virtual time."""
    with lone_quota(seed, 1.0, oracle) as world:
        recorded = History(lambda: world.loop.steps)
        world.run(calls_and_crashes(world, recorded, seed))
    return recorded.operations


async def calls_and_crashes(world: LoneQuota, recorded: History, seed: int) -> None:
    draw = random.Random(f"calls {seed}")
    await world.plans.put(ACCOUNT, limit=LIMIT, concurrent=100, plain=True)
    ids = [uuid7_session_id(world.around.start_us, number) for number in range(6)]
    world.oracle.commits_begun |= {(ACCOUNT, session_id) for session_id in ids}
    callers = []
    for number in range(5):
        name = f"caller-{number}"
        world.around.network.link(name).slow = draw.choice((0.0, 0.05))
        world.around.network.link(name).latency_s = draw.choice((0.001, 0.05))
        callers.append(Caller(world.stub(world.life(name)), recorded, METADATA, 2.0))
    work = [
        asyncio.create_task(caller.work(random.Random(f"{seed} {number}"), ids, 7))
        for number, caller in enumerate(callers)
    ]
    world.quota.disk = Disk(crash_before=0.03, crash_after=0.03, unsure=0.03)
    while not all(task.done() for task in work):
        await asyncio.sleep(draw.random() * 0.3)
        if not world.quota.up:
            world.quota.start()
        elif draw.random() < 0.2:
            world.around.network.cut(f"caller-{draw.randrange(5)}")


def test_simulated_histories_with_cuts_and_crashes() -> None:
    histories = [simulated_history(seed) for seed in range(60)]
    calls = sum(len(operations) for operations in histories)
    unknown = sum(operation.result == UNKNOWN for operations in histories for operation in operations)
    record("linearizability", histories=len(histories), calls=calls, unanswered=unknown)
    assert unknown > len(histories)
    assert [seed for seed, operations in enumerate(histories) if not is_linearizable(operations, LIMIT)] == []


DEFECT_SEEDS_MAX = 400
"""Histories that are looked through for a defect, until one shows it: an answer before its commit shows only where
the crash comes between the two."""


@pytest.mark.parametrize("name", ["admits_one_too_many", "reserves_over_a_tombstone", "answers_before_the_commit"])
def test_a_planted_defect_shows_in_the_histories_alone(name: str) -> None:
    with planted(name):
        assert not all(is_linearizable(simulated_history(seed, DeafOracle), LIMIT) for seed in range(DEFECT_SEEDS_MAX))
