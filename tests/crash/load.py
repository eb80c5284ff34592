"""Concurrent customers of a router that may die, and clients of a quota that may die: what each was told is kept."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
from flowstack_protos.billing.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)
from flowstack_protos.quota.v1 import quota_service_pb2 as quota_pb
from flowstack_protos.quota.v1 import quota_service_pb2_grpc
from flowstack_protos.router.v1 import router_service_pb2_grpc
from flowstack_protos.type.v1 import type_pb2
from google.protobuf.duration_pb2 import Duration

from services.router.domain.session_id import RANDOM_BITS, session_id
from services.shared.clock import SystemClock
from services.shared.settings import CommonSettings
from services.shared.status import error_from_rpc
from tests.support.suite import bearer, completion

PLAN = "hobbyist"
CALL_SECONDS = 20.0
DRAIN_SECONDS = 90.0
UNSURE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
)
RESERVED, COMMITTED, RELEASED = (
    type_pb2.SESSION_STATE_RESERVED,
    type_pb2.SESSION_STATE_COMMITTED,
    type_pb2.SESSION_STATE_RELEASED,
)


@dataclass
class Told:
    """What somebody was told, by session and by request."""

    states: dict[tuple[str, str], int] = field(default_factory=dict)
    """The last state of (account, session) that was acknowledged."""
    requests: set[tuple[str, str]] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)


@dataclass
class Account:
    """Whose sessions are used up; the next account follows when they are."""

    account_id: str
    secret: str


class Load:
    """Keeps routers and quota busy until it is told to stop."""

    def __init__(self, settings: CommonSettings, seed: int) -> None:
        self._settings = settings
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self._billing = grpc.aio.insecure_channel(settings.billing_address, options=OPTIONS)
        self._router = grpc.aio.insecure_channel(settings.router_address, options=OPTIONS)
        self._quota = grpc.aio.insecure_channel(settings.quota_address, options=OPTIONS)
        self.quota: Any = quota_service_pb2_grpc.QuotaServiceStub(self._quota)
        self._sessions: Any = router_service_pb2_grpc.RouterServiceStub(self._router)
        self._opening = asyncio.Lock()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.accounts: list[Account] = []
        self.told = Told()

    @property
    def admin(self) -> Any:
        """The operator's metadata."""
        return bearer(self._settings.admin_tokens()[0].reveal())

    @property
    def internal(self) -> Any:
        """A service's metadata."""
        return bearer(self._settings.internal_tokens()[0].reveal())

    async def start(self, customers: int, clients: int) -> None:
        """Opens the first account and begins."""
        await self.open_account(None)
        work = [self._customer() for _ in range(customers)] + [self._client() for _ in range(clients)]
        self._tasks = [asyncio.create_task(one) for one in work]

    async def stop(self) -> None:
        """Lets everybody come to an answer, and ends."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Closes the channels."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in (self._billing, self._router, self._quota):
            await channel.close()

    def check(self) -> None:
        """Raises what a customer met that is none of the answers it may get."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def open_account(self, used_up: Account | None) -> Account:
        """The account that everybody uses next, once `used_up` is."""
        async with self._opening:
            if self.accounts and self.accounts[-1] is not used_up:
                return self.accounts[-1]
            stub: Any = account_service_pb2_grpc.AccountServiceStub(self._billing)
            request = account_service_pb2.CreateAccountRequest(
                display_name="Crash", email="crash@example.com", plan_id=PLAN
            )
            created = await self._until_answered(lambda: stub.CreateAccount, request, self.admin)
            account_id = created.account.account_id
            request = account_service_pb2.CreateApiKeyRequest(account_id=account_id, display_name="crash")
            key = await self._until_answered(lambda: stub.CreateApiKey, request, self.admin)
            self.accounts.append(Account(account_id, key.secret))
            return self.accounts[-1]

    async def _until_answered(self, method: Any, request: Any, metadata: Any) -> Any:
        while True:
            try:
                return await method()(request, metadata=metadata, timeout=CALL_SECONDS, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                if not is_unsure(error):
                    raise

    async def drained(self) -> None:
        """Waits until no session holds a unit, and until billing has every session that counts."""
        for account in self.accounts:
            await self._until_none_runs(account)
        resolved_us = SystemClock().now_us()
        for account in self.accounts:
            await self._until_booked(account, resolved_us)

    async def _until_booked(self, account: Account, resolved_us: int) -> None:
        stub: Any = usage_service_pb2_grpc.UsageServiceStub(self._billing)
        request = usage_service_pb2.GetUsageRequest()
        while True:
            response = await self._until_answered(lambda: stub.GetUsage, request, bearer(account.secret))
            usage = response.usage
            # The second is what ends the wait of a run over midnight.
            if usage.sessions_used_today == usage.sessions_used:
                return
            if usage.costs_as_of_time.ToMicroseconds() >= resolved_us:
                return

    async def _until_none_runs(self, account: Account) -> None:
        request = quota_pb.WatchQuotaRequest(account_id=account.account_id)
        watch = self.quota.WatchQuota(request, metadata=self.internal, timeout=DRAIN_SECONDS, wait_for_ready=True)
        async for response in watch:
            if response.quota.sessions_reserved == 0:
                watch.cancel()
                return

    async def _customer(self) -> None:
        """Asks for one completion after another; tries each again, under its request_id, until it knows."""
        while not self._stopping:
            account = self.accounts[-1]
            request_id = f"req-{next(self._numbers)}"
            self.told.requests.add((account.account_id, request_id))
            while not self._stopping:
                answer = await self._complete(account, request_id)
                self.told.answers[answer] += 1
                if answer in ("SESSION_QUOTA_EXCEEDED", "ENTITLEMENT_MISSING"):
                    await self._next_account(account, answer)
                    break
                if answer in ("COMMITTED", "DUPLICATE_REQUEST"):
                    break

    async def _next_account(self, account: Account, answer: str) -> None:
        # The entitlement of a new account may still be on its way to a quota that was down.
        if answer == "SESSION_QUOTA_EXCEEDED":
            await self.open_account(account)

    async def _complete(self, account: Account, request_id: str) -> str:
        """One try; answers how it ended."""
        labels = {
            "echo.words": str(self._random.randrange(1, 4)),
            "echo.delay_ms": str(self._random.choice((0, 1, 20))),
        }
        request = completion(request_id=request_id, labels=labels)
        id_ = ""
        try:
            call = self._sessions.Complete(
                request, metadata=bearer(account.secret), timeout=CALL_SECONDS, wait_for_ready=True
            )
            async for event in call:
                if event.WhichOneof("event") == "session_started":
                    id_ = event.session_started.session_id
                    self._hear(account, id_, RESERVED)
                elif event.WhichOneof("event") == "session_finished":
                    self._hear(account, id_, event.session_finished.session_state)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.CANCELLED:
                self.told.answers["CANCELLED once begun" if id_ else "CANCELLED"] += 1
            return reason(error)
        # Quota did not answer the commit in time: it goes on.
        return "COMMITTED" if self.told.states.get((account.account_id, id_)) == COMMITTED else "UNRESOLVED"

    def _hear(self, account: Account, id_: str, state: int) -> None:
        key = (account.account_id, id_)
        if state != RESERVED or key not in self.told.states:
            self.told.states[key] = state

    async def _client(self) -> None:
        """Speaks to quota itself: repeats each command until it knows, and what it was told has to stay."""
        while not self._stopping:
            account = self.accounts[-1]
            id_ = session_id(SystemClock().now_us(), self._random.getrandbits(RANDOM_BITS))
            reserve = quota_pb.ReserveSessionRequest(
                account_id=account.account_id,
                session_id=id_,
                candidates=[
                    type_pb2.Candidate(provider="echo", model="m", credential_mode=type_pb2.CREDENTIAL_MODE_BYOK)
                ],
                lease_duration=Duration(seconds=60),
            )
            answer = await self._command("ReserveSession", reserve)
            if answer != "OK":
                self.told.answers[answer] += 1
                await self._next_account(account, answer)
                continue
            self._hear(account, id_, RESERVED)
            state = self._random.choice((COMMITTED, RELEASED))
            assert await self._end(account, id_, state) == "OK"
            self._hear(account, id_, state)

    async def _end(self, account: Account, id_: str, state: int) -> str:
        if state == RELEASED:
            request: Any = quota_pb.ReleaseSessionRequest(
                account_id=account.account_id, session_id=id_, reason=type_pb2.RELEASE_REASON_CLIENT_CANCELLED
            )
            return await self._command("ReleaseSession", request)
        request = quota_pb.CommitSessionRequest(
            account_id=account.account_id,
            session_id=id_,
            outcome=type_pb2.SessionOutcome(served_credential_mode=type_pb2.CREDENTIAL_MODE_BYOK),
        )
        return await self._command("CommitSession", request)

    async def _command(self, method: str, request: Any) -> str:
        try:
            await self._until_answered(lambda: getattr(self.quota, method), request, self.internal)
        except grpc.aio.AioRpcError as error:
            return reason(error)
        return "OK"


def is_unsure(error: grpc.aio.AioRpcError) -> bool:
    """Whether nobody knows what became of the call. A server that stops cancels what it has not taken up."""
    return error.code() in UNSURE


def reason(error: grpc.aio.AioRpcError) -> str:
    """Why a call failed; UNSURE where nobody knows what became of it."""
    if is_unsure(error):
        return "UNSURE"
    ours = error_from_rpc(error)
    assert ours is not None, f"{error.code()}: {error.details()}"
    return ours.reason.value
