"""A quota service for billing's tests: entitlements, counts and session events in memory, over real sockets.

It keeps to quota's contract: revisions only rise, cursors carry the store's epoch, events come in order within a
partition and again until they are acknowledged. The switches make it fail in the ways that the contract allows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.quota.v1 import quota_service_pb2_grpc
from flowstack_protos.type.v1 import type_pb2

from services.billing.domain.ledger import PARTITIONS, partition_of
from services.shared.errors import FlowStackError, Reason
from services.shared.periods import period_at
from services.shared.status import abort
from services.shared.times import time_to_proto, us_from_proto

COMMITTED, RELEASED, EXPIRED = 1, 2, 3
BYOK, MANAGED = type_pb2.CREDENTIAL_MODE_BYOK, type_pb2.CREDENTIAL_MODE_MANAGED
Context = grpc.aio.ServicerContext


class FakeQuotaEvents(quota_service_pb2_grpc.QuotaServiceServicer):
    """Quota as billing sees it."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self.entitlements: dict[str, pb.Entitlement] = {}
        self.puts: list[pb.Entitlement] = []
        self.committed: Counter[tuple[str, int, int]] = Counter()
        self.refusal_reason = ""
        self.epoch = "e1"
        self.events: dict[int, list[pb.SessionEvent]] = {partition: [] for partition in range(PARTITIONS)}
        self.acknowledged: Counter[int] = Counter()
        self.unavailable = False
        """Every call answers UNAVAILABLE, and streams that run are cut."""
        self.redeliver = False
        """A stream begins with the oldest event, whatever the reader has."""
        self.duplicate = False
        """Every event is sent twice."""
        self.refuse_acknowledgements = False
        self.withhold = False
        """Who follows is sent nothing more; who reads up to the present is."""
        self.on_get_quota: Callable[[], None] = lambda: None
        """Is called before counts are read."""
        self.watches = 0
        """How often somebody began to watch a quota."""
        self.watching = 0
        """How many do so now."""
        self._changed = asyncio.Condition()
        self._server: grpc.aio.Server | None = None
        self.address = ""

    async def start(self, port: int = 0) -> None:
        """Listens, on any free port unless one is named."""
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        quota_service_pb2_grpc.add_QuotaServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        await self._server.start()

    async def stop(self) -> None:
        """Is gone; what is stored stays."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def restart(self) -> None:
        """Listens again where it did before."""
        await self.start(int(self.address.rpartition(":")[2]))

    async def set_unavailable(self, unavailable: bool) -> None:
        """Fails every call, or serves again."""
        self.unavailable = unavailable
        await self._notify()

    async def set_withhold(self, withhold: bool) -> None:
        """Keeps new events from followers, or lets them go."""
        self.withhold = withhold
        await self._notify()

    async def replace_store(self) -> None:
        """A new, empty store stands in the old one's place."""
        self.epoch += "'"
        self.entitlements.clear()
        self.committed.clear()
        self.acknowledged.clear()
        self.events = {partition: [] for partition in range(PARTITIONS)}
        await self._notify()

    async def resolve(
        self,
        account_id: str,
        session_id: str,
        event: int = COMMITTED,
        *,
        reserve_us: int | None = None,
        mode: int = BYOK,
        outcome: type_pb2.SessionOutcome | None = None,
        **fields: Any,
    ) -> None:
        """A session ends: its event is sent to whoever reads."""
        now_us = self._now_us()
        reserve_us = now_us if reserve_us is None else reserve_us
        entitlement = self.entitlements.get(account_id)
        anchor_us = us_from_proto(entitlement.period_anchor_time) if entitlement else reserve_us
        period_us = period_at(anchor_us, reserve_us).start_us
        session = type_pb2.Session(
            session_id=session_id,
            account_id=account_id,
            state=event + 1,  # type: ignore[arg-type]
            candidates=[type_pb2.Candidate(provider="echo", model="echo-1", credential_mode=mode)],  # type: ignore[arg-type]
            period_start_time=time_to_proto(period_us),
            reserve_time=time_to_proto(reserve_us),
            expire_time=time_to_proto(reserve_us + 330_000_000),
            resolve_time=time_to_proto(now_us),
            outcome=outcome,
            entitlement_revision=1,
            **fields,
        )
        if event == COMMITTED:
            self.committed[account_id, period_us, mode] += 1
        partition = partition_of(account_id)
        found = self.events[partition]
        found.append(
            pb.SessionEvent(
                partition=partition,
                cursor=f"{self.epoch}:{partition}:{len(found) + 1}",
                type=event,  # type: ignore[arg-type]
                event_time=time_to_proto(now_us),
                session=session,
            )
        )
        await self._notify()

    async def drained(self) -> None:
        """Waits until every event has been acknowledged."""
        await self.until(
            lambda: all(self.acknowledged[partition] == len(found) for partition, found in self.events.items())
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for something that a call brings about."""
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _admit(self, context: Context[Any, Any]) -> None:
        if self.unavailable:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "switched off by the test")

    async def PutEntitlement(
        self, request: pb.PutEntitlementRequest, context: Context[Any, Any]
    ) -> pb.PutEntitlementResponse:
        await self._admit(context)
        offered = request.entitlement
        stored = self.entitlements.get(offered.account_id)
        if stored is not None and (
            offered.revision < stored.revision or (offered.revision == stored.revision and offered != stored)
        ):
            metadata = {"stored_revision": str(stored.revision)}
            await abort(context, FlowStackError(Reason.STALE_REVISION, "Stale.", metadata=metadata))
        self.entitlements[offered.account_id] = offered
        self.puts.append(offered)
        await self._notify()
        return pb.PutEntitlementResponse(entitlement=offered)

    async def GetQuota(self, request: pb.GetQuotaRequest, context: Context[Any, Any]) -> pb.GetQuotaResponse:
        await self._admit(context)
        self.on_get_quota()
        return pb.GetQuotaResponse(quota=await self._quota(request.account_id, context))

    async def WatchQuota(
        self, request: pb.WatchQuotaRequest, context: Context[Any, Any]
    ) -> AsyncIterator[pb.WatchQuotaResponse]:
        await self._admit(context)
        self.watches += 1
        self.watching += 1
        try:
            last = None
            while True:
                quota = await self._quota(request.account_id, context)
                if quota != last:
                    yield pb.WatchQuotaResponse(quota=quota)
                    last = quota
                async with self._changed:
                    await self._changed.wait()
                await self._admit(context)
        finally:
            self.watching -= 1
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self._notify()))

    async def _quota(self, account_id: str, context: Context[Any, Any]) -> type_pb2.Quota:
        entitlement = self.entitlements.get(account_id)
        if entitlement is None:
            await abort(context, FlowStackError(Reason.ENTITLEMENT_MISSING, "None."))
        term = entitlement.terms[-1]
        period = period_at(us_from_proto(entitlement.period_anchor_time), self._now_us())
        managed = self.committed[account_id, period.start_us, MANAGED]
        byok = self.committed[account_id, period.start_us, BYOK]
        remaining = max(0, term.session_limit - managed - byok)
        refusal = self.refusal_reason or ("" if remaining else "SESSION_QUOTA_EXCEEDED")
        return type_pb2.Quota(
            account_id=account_id,
            plan_id=term.plan_id,
            period_start_time=time_to_proto(period.start_us),
            period_end_time=time_to_proto(period.end_us),
            session_limit=term.session_limit,
            sessions_committed=managed + byok,
            managed_sessions=managed,
            byok_sessions=byok,
            sessions_remaining=remaining,
            managed_providers=term.managed_providers,
            sessions_available=not refusal,
            refusal_reason=refusal,
            entitlement_revision=entitlement.revision,
        )

    async def ReadSessionEvents(
        self, request: pb.ReadSessionEventsRequest, context: Context[Any, Any]
    ) -> AsyncIterator[pb.ReadSessionEventsResponse]:
        await self._admit(context)
        epoch = self.epoch
        sent = {}
        for position in request.positions:
            sent[position.partition] = 0 if self.redeliver else await self._place(position, context)
        while True:
            for partition, begin in sent.items():
                found = self.events[partition][begin:]
                if found and not (request.follow and self.withhold):
                    sent[partition] = len(self.events[partition])
                    yield pb.ReadSessionEventsResponse(
                        events=[event for event in found for _ in range(1 + self.duplicate)],
                        watermarks=[self._watermark(partition)],
                    )
            if not request.follow:
                yield pb.ReadSessionEventsResponse(watermarks=[self._watermark(partition) for partition in sent])
                return
            async with self._changed:
                await self._changed.wait_for(
                    lambda: (
                        self.unavailable
                        or self.epoch != epoch
                        or (
                            not self.withhold
                            and any(len(self.events[partition]) > begin for partition, begin in sent.items())
                        )
                    )
                )
            if self.epoch != epoch:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the store is being replaced")
            await self._admit(context)

    def _watermark(self, partition: int) -> pb.PartitionWatermark:
        return pb.PartitionWatermark(partition=partition, watermark_time=time_to_proto(self._now_us()))

    async def _place(self, position: pb.PartitionPosition, context: Context[Any, Any]) -> int:
        if not position.after_cursor:
            return 0
        epoch, partition, number = position.after_cursor.split(":")
        assert int(partition) == position.partition
        if epoch != self.epoch:
            metadata = {"store_epoch": self.epoch}
            await abort(context, FlowStackError(Reason.INVALID_REQUEST, "Another epoch.", metadata=metadata))
        return int(number)

    async def AcknowledgeSessionEvents(
        self, request: pb.AcknowledgeSessionEventsRequest, context: Context[Any, Any]
    ) -> pb.AcknowledgeSessionEventsResponse:
        await self._admit(context)
        if self.refuse_acknowledgements:
            self.refuse_acknowledgements = False
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the acknowledgement is lost")
        for position in request.positions:
            number = await self._place(position, context)
            self.acknowledged[position.partition] = max(self.acknowledged[position.partition], number)
        await self._notify()
        return pb.AcknowledgeSessionEventsResponse()
