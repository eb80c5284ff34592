"""Load on a quota server: unary reserves, lone reserves, and whole sessions through the router's client."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.quota.v1 import quota_service_pb2_grpc
from flowstack_protos.type.v1 import type_pb2

from bench.population import account_id
from bench.processes import Server
from services.router.adapters.quota_client import QuotaClient
from services.router.domain.outcome import FinishReason, Outcome, Usage
from services.router.domain.quota import Reservation
from services.router.domain.request import Candidate, CredentialMode

TIMEOUT_SECONDS = 30


def new_session_id() -> str:
    """A session id of now."""
    return f"ses_{time.time_ns() // 1_000_000:012x}7{random.getrandbits(12):03x}8{random.getrandbits(60):015x}"


def reserve_request(account: str) -> pb.ReserveSessionRequest:
    """A reserve of a new session."""
    candidate = type_pb2.Candidate(provider="echo", model="echo-1", credential_mode=type_pb2.CREDENTIAL_MODE_BYOK)
    return pb.ReserveSessionRequest(account_id=account, session_id=new_session_id(), candidates=[candidate])


async def per_second(work: Callable[[], Awaitable[object]], callers: int, calls: int) -> float:
    """How often `work` is done in a second by so many callers at once."""

    async def caller() -> None:
        for _ in range(calls // callers):
            await work()

    started_s = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return calls // callers * callers / (time.perf_counter() - started_s)


class UnaryReserve:
    """Reserves on random accounts, one call each."""

    def __init__(self, server: Server, accounts: int) -> None:
        self._stub = quota_service_pb2_grpc.QuotaServiceStub(server.channel.channel)
        self._metadata = server.channel.metadata
        self._accounts = accounts

    async def __call__(self) -> None:
        """One reserve."""
        await self._stub.ReserveSession(
            reserve_request(account_id(random.randrange(self._accounts))),
            metadata=self._metadata,
            timeout=TIMEOUT_SECONDS,
        )

    async def latencies_s(self, calls: int) -> list[float]:
        """The durations of lone calls, sorted, in seconds."""
        found = []
        for _ in range(calls):
            started_s = time.perf_counter()
            await self()
            found.append(time.perf_counter() - started_s)
        return sorted(found)


class StreamedSessions:
    """Reserves and commits whole sessions on random accounts through the router's client."""

    def __init__(self, client: QuotaClient, accounts: int) -> None:
        self._client = client
        self._accounts = accounts
        self._candidates = (Candidate("echo", "echo-1", CredentialMode.BYOK, None),)
        self._outcome = Outcome(
            FinishReason.STOP,
            "stop",
            "echo",
            "echo-1",
            CredentialMode.BYOK,
            Usage(input_tokens=10, output_tokens=20),
        )

    async def __call__(self) -> None:
        """One session."""
        account, session_id = account_id(random.randrange(self._accounts)), new_session_id()
        await self._client.reserve(Reservation(account, session_id, self._candidates, 330.0, "", "", {}))
        await self._client.commit(account, session_id, self._outcome)
