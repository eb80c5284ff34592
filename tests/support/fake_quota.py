"""A quota service that counts exactly, in memory, over real sockets, and fails on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from flowstack_protos.quota.v1 import quota_service_pb2 as quota_pb
from flowstack_protos.quota.v1 import quota_service_pb2_grpc as quota_grpc
from flowstack_protos.type.v1 import type_pb2

from services.shared.channel import ServiceChannel
from services.shared.errors import FlowStackError, Reason
from services.shared.status import abort, status_from_error

RESERVED = type_pb2.SESSION_STATE_RESERVED
COMMITTED = type_pb2.SESSION_STATE_COMMITTED
RELEASED = type_pb2.SESSION_STATE_RELEASED


@dataclass
class Faults:
    """What goes wrong, by kind of command: reserve, commit, release."""

    silent: set[str] = field(default_factory=set)
    """Neither decided nor answered."""
    late: set[str] = field(default_factory=set)
    """Decided at once, answered only once `answer_now` is set."""
    breaks: set[str] = field(default_factory=set)
    """Decided, then the stream breaks instead of the answer."""
    errors: dict[str, FlowStackError] = field(default_factory=dict)
    """Answered with this and not decided."""
    replayed: bool = False
    """Every reservation is answered as a replay."""
    answer_now: asyncio.Event = field(default_factory=asyncio.Event)


class FakeQuota(quota_grpc.QuotaServiceServicer):
    """One account's quota for every account id that is asked for."""

    def __init__(self, limit: int = 1000) -> None:
        self.limit = limit
        self.max_output_tokens = 0
        self.max_tool_rounds = 25
        self.managed_providers: list[str] = []
        self.sessions: dict[str, type_pb2.Session] = {}
        self.reservations: list[quota_pb.ReserveSessionRequest] = []
        self.faults = Faults()
        self.batch_sizes: list[int] = []
        self._changed = asyncio.Condition()
        self._server: grpc.aio.Server | None = None
        self.address = ""

    async def start(self, port: int = 0) -> None:
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        quota_grpc.add_QuotaServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        await self._server.start()

    async def die(self) -> None:
        """Stops at once, as a killed process does. What was counted stays."""
        assert self._server is not None
        await self._server.stop(0)

    async def restart(self) -> None:
        await self.start(int(self.address.rpartition(":")[2]))

    def states(self) -> list[str]:
        """The state of every session, in the order in which they came."""
        return [type_pb2.SessionState.Name(s.state).removeprefix("SESSION_STATE_") for s in self.sessions.values()]

    @property
    def only(self) -> type_pb2.Session:
        (session,) = self.sessions.values()
        return session

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until `condition` holds; looked at after every command."""
        async with self._changed, asyncio.timeout(20):
            await self._changed.wait_for(condition)

    async def until_resolved(self, count: int = 1) -> None:
        """Waits until so many sessions are there and none is reserved."""
        await self.until(lambda: len(self.sessions) >= count and "RESERVED" not in self.states())

    async def ExecuteCommands(
        self, request_iterator: AsyncIterator[quota_pb.ExecuteCommandsRequest], context: object
    ) -> AsyncIterator[quota_pb.ExecuteCommandsResponse]:
        answers: asyncio.Queue[quota_pb.SessionCommandResult | None] = asyncio.Queue()
        running: set[asyncio.Task[None]] = set()

        async def answer(command: quota_pb.SessionCommand) -> None:
            result = await self._run(command)
            if result is not None:
                await answers.put(result)

        async def read() -> None:
            async for batch in request_iterator:
                self.batch_sizes.append(len(batch.commands))
                for command in batch.commands:
                    if command.WhichOneof("command") in self.faults.breaks:
                        self._decide(command)
                        await self._notify()
                        await answers.put(None)
                        return
                    running.add(asyncio.create_task(answer(command)))

        reader = asyncio.create_task(read())
        try:
            while (result := await answers.get()) is not None:
                yield quota_pb.ExecuteCommandsResponse(results=[result])
            await context.abort(grpc.StatusCode.UNAVAILABLE)  # type: ignore[attr-defined]
        finally:
            for task in (reader, *running):
                task.cancel()

    async def GetQuota(self, request: quota_pb.GetQuotaRequest, context: object) -> quota_pb.GetQuotaResponse:
        if error := self.faults.errors.get("get"):
            await abort(context, error)  # type: ignore[arg-type]
        return quota_pb.GetQuotaResponse(quota=self._quota(request.account_id))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _run(self, command: quota_pb.SessionCommand) -> quota_pb.SessionCommandResult | None:
        kind = command.WhichOneof("command") or ""
        if kind in self.faults.silent:
            if kind == "reserve":
                self.reservations.append(command.reserve)
            await self._notify()
            return None
        result = self._decide(command)
        await self._notify()
        if kind in self.faults.late:
            await self.faults.answer_now.wait()
        return result

    def _decide(self, command: quota_pb.SessionCommand) -> quota_pb.SessionCommandResult:
        kind = command.WhichOneof("command")
        result = quota_pb.SessionCommandResult(sequence=command.sequence)
        try:
            if kind in self.faults.errors:
                raise self.faults.errors[kind]
            if kind == "reserve":
                result.reserve.CopyFrom(self._reserve(command.reserve))
            elif kind == "commit":
                session = self._resolve(command.commit.session_id, COMMITTED)
                session.outcome.CopyFrom(command.commit.outcome)
                result.commit.session.CopyFrom(session)
                result.commit.quota.CopyFrom(self._quota(session.account_id))
            else:
                session = self._resolve(command.release.session_id, RELEASED)
                session.release_reason = command.release.reason
                session.outcome.CopyFrom(command.release.outcome)
                result.release.session.CopyFrom(session)
                result.release.quota.CopyFrom(self._quota(session.account_id))
        except FlowStackError as error:
            result.error.CopyFrom(status_from_error(error))
        return result

    def _reserve(self, request: quota_pb.ReserveSessionRequest) -> quota_pb.ReserveSessionResponse:
        self.reservations.append(request)
        if request.session_id in self.sessions:
            raise FlowStackError(Reason.SESSION_ALREADY_RESOLVED, "Released before.")
        for other in self.sessions.values():
            if request.request_id and other.request_id == request.request_id and other.state in (RESERVED, COMMITTED):
                raise FlowStackError(Reason.DUPLICATE_REQUEST, "Again.", metadata={"session_id": other.session_id})
        if any(
            candidate.credential_mode == type_pb2.CREDENTIAL_MODE_MANAGED
            and candidate.provider not in self.managed_providers
            for candidate in request.candidates
        ):
            raise FlowStackError(Reason.BYOK_REQUIRED, "The plan does not include that provider.")
        if self._held() >= self.limit:
            raise FlowStackError(
                Reason.SESSION_QUOTA_EXCEEDED, "The limit is reached.", metadata={"limit": str(self.limit)}
            )
        session = type_pb2.Session(
            session_id=request.session_id,
            account_id=request.account_id,
            state=RESERVED,
            candidates=request.candidates,
            request_id=request.request_id,
            api_key_id=request.api_key_id,
            labels=request.labels,
        )
        self.sessions[request.session_id] = session
        return quota_pb.ReserveSessionResponse(
            session=session, quota=self._quota(request.account_id), replayed=self.faults.replayed
        )

    def _resolve(self, session_id: str, state: type_pb2.SessionState) -> type_pb2.Session:
        session = self.sessions.get(session_id)
        if session is None:
            if state == COMMITTED:
                raise FlowStackError(Reason.SESSION_NOT_FOUND, "Not known.")
            session = self.sessions[session_id] = type_pb2.Session(session_id=session_id, state=RESERVED)
        if session.state not in (RESERVED, state):
            name = type_pb2.SessionState.Name(session.state).removeprefix("SESSION_STATE_")
            raise FlowStackError(Reason.SESSION_ALREADY_RESOLVED, "Resolved before.", metadata={"session_state": name})
        session.state = state
        return session

    def _held(self) -> int:
        return sum(session.state in (RESERVED, COMMITTED) for session in self.sessions.values())

    def _quota(self, account_id: str) -> type_pb2.Quota:
        committed = sum(session.state == COMMITTED for session in self.sessions.values())
        return type_pb2.Quota(
            account_id=account_id,
            plan_id="starter",
            session_limit=self.limit,
            sessions_committed=committed,
            sessions_reserved=self._held() - committed,
            sessions_remaining=self.limit - self._held(),
            max_output_tokens=self.max_output_tokens,
            max_tool_rounds=self.max_tool_rounds,
            managed_providers=self.managed_providers,
            sessions_available=self._held() < self.limit,
        )


@asynccontextmanager
async def quota_server(limit: int = 1000) -> AsyncIterator[FakeQuota]:
    """A running fake."""
    fake = FakeQuota(limit)
    await fake.start()
    try:
        yield fake
    finally:
        await fake.die()


def channel_to(address: str) -> ServiceChannel:
    """A channel that reconnects at once."""
    options = (
        ("grpc.initial_reconnect_backoff_ms", 20),
        ("grpc.min_reconnect_backoff_ms", 20),
        ("grpc.max_reconnect_backoff_ms", 50),
        ("grpc.use_local_subchannel_pool", 1),
    )
    return ServiceChannel(grpc.aio.insecure_channel(address, options=options), ())
