"""Who calls: customers with their retries, a client in another language with its own, and billing's plan changes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.quota.v1 import quota_service_pb2_grpc
from flowstack_protos.type.v1 import type_pb2

from services.billing.adapters.quota_client import QuotaClient
from services.billing.domain.entitlements import Block, BlockReason, Entitlement, EntitlementTerm
from services.router.domain.events import SessionFinished
from services.router.domain.request import (
    Choice,
    CompletionRequest,
    Customer,
    Message,
    OpenAiCredentials,
    Prompt,
    Role,
    TextPart,
)
from services.router.domain.session_id import RANDOM_BITS, session_id
from services.shared.channel import ServiceChannel
from services.shared.errors import FlowStackError, Reason
from services.shared.secret import Secret
from services.shared.status import error_from_rpc
from tests.simulation.hosts import METADATA, HostClock, Surroundings
from tests.simulation.oracle import COMMITTED, RELEASED, RESERVED
from tests.simulation.router_host import PROVIDERS, STATES, RouterHost
from tests.support.linearizability import History
from tests.support.simulation_loop import Life
from tests.support.simulation_net import FakeChannel

LEASE_SECONDS = 10
"""Of the foreign client's sessions."""

BYOK = OpenAiCredentials(Secret("sk-of-the-customer"))


@dataclass(frozen=True)
class Wish:
    """One request of a customer, tried again where that makes sense."""

    number: int
    account_id: str
    request_id: str
    byok: bool
    fallback: bool
    patience_s: float
    tries: int


class Customers:
    """Customers at random times."""

    def __init__(self, around: Surroundings, routers: Sequence[RouterHost]) -> None:
        self._around = around
        self._routers = routers
        self._random = random.Random(f"customers {around.seed}")

    def wishes(self, count: int, accounts: Sequence[str]) -> list[Wish]:
        """What is asked for; sometimes twice, as by a finger that clicks twice."""
        draw = self._random
        found: list[Wish] = []
        for number in range(count):
            request_id = f"req-{number}" if draw.random() < 0.5 else ""
            wish = Wish(
                number,
                draw.choice(accounts),
                request_id,
                byok=draw.random() < 0.5,
                fallback=draw.random() < 0.3,
                patience_s=draw.choice((0.05, 0.5, 2.0)) * draw.random() if draw.random() < 0.25 else 1_000.0,
                tries=draw.randrange(1, 4),
            )
            if found and request_id and draw.random() < 0.2:
                wish = replace(wish, account_id=found[-1].account_id, request_id=found[-1].request_id)
            found.append(wish)
        return found

    async def come(self, wishes: Sequence[Wish], within_s: float) -> None:
        """All of them come within a time, and go when they have their answers."""
        await asyncio.gather(*(self._come(wish, self._random.random() * within_s) for wish in wishes))

    async def _come(self, wish: Wish, after_s: float) -> None:
        await asyncio.sleep(after_s)
        for attempt in range(wish.tries):
            router = await self._reachable()
            answer = await self.ask(router, wish, f"{wish.number}.{attempt}")
            self._around.loop.note(f"request {wish.number}.{attempt}: {answer}")
            if answer not in (Reason.QUOTA_UNAVAILABLE, Reason.PROVIDER_UNAVAILABLE, "no answer"):
                return
            await asyncio.sleep(self._random.random() * 2)

    async def _reachable(self) -> RouterHost:
        while True:
            up = [router for router in self._routers if router.up]
            if up:
                return self._random.choice(up)
            await asyncio.sleep(0.5)

    async def ask(self, router: RouterHost, wish: Wish, tag: str) -> str:
        """One call; answers what the customer is told."""
        assert router.life is not None
        asked = router.life.start(self._stream(router, wish, tag))
        await asyncio.wait((asked, router.life.ended), return_when=asyncio.FIRST_COMPLETED)
        return asked.result() if asked.done() else "no answer"

    async def _stream(self, router: RouterHost, wish: Wish, tag: str) -> str:
        choices = tuple(Choice(name, "m") for name in PROVIDERS[: 2 if wish.fallback else 1])
        prompt = Prompt((Message(Role.USER, (TextPart("hello"),)),), labels={"tag": tag})
        credentials = (BYOK,) if wish.byok else ()
        request = CompletionRequest(prompt, choices, credentials, wish.request_id)
        loop = asyncio.get_running_loop()
        try:
            stream = router.service.complete(Customer(wish.account_id, "key_1"), request)
            patience = loop.call_later(wish.patience_s, stream.abandon)
            answer = "nothing"
            while events := await stream.take():
                if isinstance(events[-1], SessionFinished):
                    answer = events[-1].state.name
                    self._told(tag, STATES[events[-1].state])
            patience.cancel()
        except FlowStackError as error:
            return error.reason.value
        return answer

    def _told(self, tag: str, state: int) -> None:
        if state != RESERVED:
            self._around.oracle.told(self._around.oracle.granted[tag], state)


class ForeignClient:
    """A client of the unary methods that repeats every command until it knows, and contradicts itself afterwards."""

    def __init__(self, around: Surroundings, history: History) -> None:
        self._around = around
        self._history = history
        self._clock = HostClock(around.loop, around.start_us)
        self._random = random.Random(f"foreign {around.seed}")
        self._stub: Any = quota_service_pb2_grpc.QuotaServiceStub(
            FakeChannel(around.network, Life(around.loop, "foreign"), "foreign")  # type: ignore[arg-type]
        )

    async def run(self, account_id: str, until_s: float) -> None:
        """One session after another."""
        while self._around.loop.time() < until_s:
            await self._session(account_id)
            await asyncio.sleep(self._random.random() * 4)

    async def _session(self, account_id: str) -> None:
        id_ = session_id(self._clock.now_us(), self._random.getrandbits(RANDOM_BITS))
        reserve = pb.ReserveSessionRequest(
            account_id=account_id,
            session_id=id_,
            candidates=[
                type_pb2.Candidate(provider="openai", model="m", credential_mode=type_pb2.CREDENTIAL_MODE_BYOK)
            ],
            labels={"tag": id_},
        )
        reserve.lease_duration.FromSeconds(LEASE_SECONDS)
        commit = pb.CommitSessionRequest(
            account_id=account_id,
            session_id=id_,
            outcome=type_pb2.SessionOutcome(served_credential_mode=type_pb2.CREDENTIAL_MODE_BYOK),
        )
        release = pb.ReleaseSessionRequest(
            account_id=account_id, session_id=id_, reason=type_pb2.RELEASE_REASON_CLIENT_CANCELLED
        )
        if self._random.random() < 0.15:
            # Overtakes its own reserve, which has to find it closed.
            await self._until_known("release", self._stub.ReleaseSession, release, RELEASED)
        if await self._until_known("reserve", self._stub.ReserveSession, reserve, RESERVED) != "ok":
            return
        late = self._random.random() < 0.15
        await asyncio.sleep(self._random.random() * 3 + (LEASE_SECONDS if late else 0))
        ends = [
            ("commit", self._stub.CommitSession, commit, COMMITTED),
            ("release", self._stub.ReleaseSession, release, RELEASED),
        ]
        self._random.shuffle(ends)
        if ends[0][0] == "commit" or self._random.random() < 0.7:
            self._around.oracle.commits_begun.add((account_id, id_))
        else:
            del ends[1]
        for end in (*ends, ends[0]):
            await self._until_known(*end)

    async def _until_known(self, kind: str, method: Callable[..., Awaitable[Any]], request: Any, state: int) -> str:
        key = (request.account_id, request.session_id)
        while True:
            try:
                async with self._history.recorded(kind, *key) as operation:
                    answer = await self._once(method, request)
                    operation.result = "replayed" if kind == "reserve" and answer.replayed else "ok"
            except FlowStackError as error:
                if error.reason is not Reason.QUOTA_UNAVAILABLE:
                    return error.reason.value
                await asyncio.sleep(self._random.random())
            else:
                self._around.oracle.told(key, state, fresh=not answer.replayed)
                return "ok"

    async def _once(self, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        try:
            return await method(request, metadata=METADATA, timeout=1.0)
        except grpc.aio.AioRpcError as error:
            unknown = FlowStackError(Reason.QUOTA_UNAVAILABLE, "no answer")
            raise (error_from_rpc(error) or unknown) from None

    async def quota(self, account_id: str) -> type_pb2.Quota:
        """The account's quota, once it can be had."""
        while True:
            try:
                answer = await self._once(self._stub.GetQuota, pb.GetQuotaRequest(account_id=account_id))
            except FlowStackError as error:
                assert error.reason is Reason.QUOTA_UNAVAILABLE, error
                await asyncio.sleep(0.1)
            else:
                return answer.quota


class Plans:
    """Billing's one writer of entitlements: changes limits, terms and blocks, each until quota has it."""

    def __init__(self, around: Surroundings, anchor_us: int) -> None:
        self._around = around
        self._anchor_us = anchor_us
        self._random = random.Random(f"plans {around.seed}")
        channel = FakeChannel(around.network, Life(around.loop, "plans"), "plans")
        self._client = QuotaClient(ServiceChannel(channel, METADATA))  # type: ignore[arg-type]

    async def put(
        self, account_id: str, *, limit: int | None = None, concurrent: int | None = None, plain: bool = False
    ) -> None:
        """Puts the next revision, and again until quota says that it has it.

        Args:
            account_id: whose.
            limit: sessions a period; drawn where None.
            concurrent: sessions at once; drawn where None.
            plain: with no later term and no block.
        """
        known = self._around.oracle.entitlements.setdefault(account_id, {})
        entitlement = self._next(account_id, len(known) + 1, limit, concurrent, plain)
        known[entitlement.revision] = entitlement
        while True:
            try:
                await self._client.put_entitlement(entitlement, 2.0)
            except FlowStackError as error:
                assert error.reason is Reason.QUOTA_UNAVAILABLE, error
                await asyncio.sleep(self._random.random())
            else:
                return

    def _next(
        self, account_id: str, revision: int, limit: int | None, concurrent: int | None, plain: bool
    ) -> Entitlement:
        draw, now_us = self._random, self._around.start_us + round(self._around.loop.time() * 1e6)
        first = limit or draw.randrange(1, 14)
        terms = [self._term(self._anchor_us, first, concurrent)]
        block = None
        if not plain and draw.random() < 0.3:
            terms.append(self._term(now_us + draw.randrange(30_000_000), draw.randrange(0, 14)))
        if not plain and draw.random() < 0.2:
            block = Block(BlockReason.BUDGET_EXCEEDED, "", now_us + draw.randrange(20_000_000))
        return Entitlement(account_id, revision, "sub_1", self._anchor_us, tuple(terms), 0, block)

    def _term(self, effective_us: int, limit: int, concurrent: int | None = None) -> EntitlementTerm:
        at_once = concurrent or self._random.choice((2, 5, 100))
        return EntitlementTerm(effective_us, f"plan-{limit}", limit, PROVIDERS, at_once, 0, 25, "")

    async def run(self, accounts: Sequence[str], until_s: float) -> None:
        """Changes something now and then."""
        while self._around.loop.time() < until_s:
            await asyncio.sleep(self._random.random() * 20)
            await self.put(self._random.choice(accounts))
