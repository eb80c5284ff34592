"""QuotaService over gRPC: convert in, ask the service, convert out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import grpc
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.quota.v1 import quota_service_pb2_grpc

from services.quota.convert import commands, entitlements, events, sessions
from services.quota.domain.commands import Command, Done, Result
from services.quota.service import QuotaService
from services.shared.auth import Policy
from services.shared.errors import FlowStackError, Reason, invalid_request
from services.shared.interceptor import Plain
from services.shared.log import frames_of, get_logger

POLICIES: Final = {
    "ReserveSession": Policy.INTERNAL,
    "CommitSession": Policy.INTERNAL,
    "ReleaseSession": Policy.INTERNAL,
    "ExecuteCommands": Policy.INTERNAL,
    "GetSession": Policy.INTERNAL,
    "GetQuota": Policy.INTERNAL,
    "WatchQuota": Policy.INTERNAL,
    "PutEntitlement": Policy.INTERNAL,
    "GetEntitlement": Policy.INTERNAL,
    "ReadSessionEvents": Policy.INTERNAL,
    "AcknowledgeSessionEvents": Policy.INTERNAL,
}

CONVERSION_VALIDATES: Final[Mapping[str, Plain]] = dict.fromkeys(
    ("ReserveSession", "CommitSession", "ReleaseSession", "ExecuteCommands"), lambda _: True
)
"""Methods whose commands are validated as they are converted: in a batch, a bad one fails alone."""

BASIC: Final = pb.SESSION_VIEW_BASIC

BATCH_COMMANDS_MAX: Final = 10_000
"""Commands in one message of ExecuteCommands."""

EXECUTE_MAX: Final = 128
"""Commands given to the store at once."""

RESPONSE_BYTES: Final = 1024 * 1024
RESPONSE_CHECK_RESULTS: Final = 64
"""A response is sent once it has this size, which is looked at after so many results. A client takes messages of 4 MiB
by default, and the largest result has about 35 KiB."""

STREAM_COMMANDS_MAX: Final = 20_000
"""Commands of one stream that may be unanswered. A client that sends more waits: its messages stay unread."""

Context = grpc.aio.ServicerContext


class QuotaServicer(quota_service_pb2_grpc.QuotaServiceServicer):
    """The RPCs. Errors rise as FlowStackError and are answered by the interceptor."""

    def __init__(self, service: QuotaService) -> None:
        self._service = service

    async def ReserveSession(
        self, request: pb.ReserveSessionRequest, context: Context[Any, Any]
    ) -> pb.ReserveSessionResponse:
        """See the contract."""
        return sessions.reserve_response(await self._execute(commands.reserve_from_proto(request)))

    async def CommitSession(
        self, request: pb.CommitSessionRequest, context: Context[Any, Any]
    ) -> pb.CommitSessionResponse:
        """See the contract."""
        return sessions.commit_response(await self._execute(commands.commit_from_proto(request)))

    async def ReleaseSession(
        self, request: pb.ReleaseSessionRequest, context: Context[Any, Any]
    ) -> pb.ReleaseSessionResponse:
        """See the contract."""
        return sessions.release_response(await self._execute(commands.release_from_proto(request)))

    async def _execute(self, command: Command) -> Done:
        (result,) = await self._service.store.execute([command])
        if isinstance(result, FlowStackError):
            raise result
        return result

    async def ExecuteCommands(
        self, request_iterator: AsyncIterator[pb.ExecuteCommandsRequest], context: Context[Any, Any]
    ) -> AsyncIterator[pb.ExecuteCommandsResponse]:
        """See the contract."""
        stream = _CommandStream(self._service)
        async for response in stream.run(request_iterator):
            yield response

    async def GetSession(self, request: pb.GetSessionRequest, context: Context[Any, Any]) -> pb.GetSessionResponse:
        """See the contract."""
        session = await self._service.session(request.account_id, request.session_id)
        return pb.GetSessionResponse(session=sessions.session_to_proto(session))

    async def GetQuota(self, request: pb.GetQuotaRequest, context: Context[Any, Any]) -> pb.GetQuotaResponse:
        """See the contract."""
        return pb.GetQuotaResponse(quota=sessions.quota_to_proto(await self._service.quota(request.account_id)))

    async def WatchQuota(
        self, request: pb.WatchQuotaRequest, context: Context[Any, Any]
    ) -> AsyncIterator[pb.WatchQuotaResponse]:
        """See the contract."""
        async for quota in self._service.watch_quota(request.account_id):
            yield pb.WatchQuotaResponse(quota=sessions.quota_to_proto(quota))

    async def PutEntitlement(
        self, request: pb.PutEntitlementRequest, context: Context[Any, Any]
    ) -> pb.PutEntitlementResponse:
        """See the contract."""
        entitlement = entitlements.entitlement_from_proto(request.entitlement)
        stored = await self._service.store.put_entitlement(entitlement)
        return pb.PutEntitlementResponse(entitlement=entitlements.entitlement_to_proto(stored))

    async def GetEntitlement(
        self, request: pb.GetEntitlementRequest, context: Context[Any, Any]
    ) -> pb.GetEntitlementResponse:
        """See the contract."""
        entitlement = await self._service.entitlement(request.account_id)
        return pb.GetEntitlementResponse(entitlement=entitlements.entitlement_to_proto(entitlement))

    async def ReadSessionEvents(
        self, request: pb.ReadSessionEventsRequest, context: Context[Any, Any]
    ) -> AsyncIterator[pb.ReadSessionEventsResponse]:
        """See the contract."""
        epoch = self._service.store.epoch
        positions = [events.position_from_proto(epoch, position) for position in request.positions]
        if len({position.partition for position in positions}) != len(positions):
            raise invalid_request("positions.partition", "must be named once each")
        async for pages in self._service.read_events(positions, request.follow):
            for page in pages:
                for response in events.page_to_proto(epoch, page):
                    yield response

    async def AcknowledgeSessionEvents(
        self, request: pb.AcknowledgeSessionEventsRequest, context: Context[Any, Any]
    ) -> pb.AcknowledgeSessionEventsResponse:
        """See the contract."""
        epoch = self._service.store.epoch
        positions = [events.position_from_proto(epoch, position) for position in request.positions]
        await self._service.store.acknowledge(positions)
        return pb.AcknowledgeSessionEventsResponse()


class _CommandStream:
    """One stream of ExecuteCommands: batches run side by side, results go out as they come."""

    def __init__(self, service: QuotaService) -> None:
        self._service = service
        self._answers: asyncio.Queue[pb.ExecuteCommandsResponse | BaseException | None] = asyncio.Queue()
        self._unanswered = 0
        self._room = asyncio.Event()
        self._room.set()
        self._batches: set[asyncio.Task[None]] = set()
        self._log = get_logger()

    async def run(
        self, requests: AsyncIterator[pb.ExecuteCommandsRequest]
    ) -> AsyncIterator[pb.ExecuteCommandsResponse]:
        """Answers every batch of `requests`; ends when they have ended and all is answered.

        Raises:
            FlowStackError: INVALID_REQUEST for a batch that is too large.
        """
        reader = asyncio.create_task(self._read(requests))
        drainer = asyncio.create_task(self._drain(reader))
        try:
            while (answer := await self._answers.get()) is not None:
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
        finally:
            reader.cancel()
            drainer.cancel()
            # Batches run on: what was given to the store is decided there, whether or not anybody listens.

    async def _read(self, requests: AsyncIterator[pb.ExecuteCommandsRequest]) -> None:
        try:
            async for request in requests:
                if len(request.commands) > BATCH_COMMANDS_MAX:
                    raise invalid_request("commands", f"must be at most {BATCH_COMMANDS_MAX}")
                await self._room.wait()
                self._start(request)
            if self._batches:
                await asyncio.wait(self._batches)
            self._answers.put_nowait(None)
        except Exception as error:
            self._answers.put_nowait(error)

    async def _drain(self, reader: asyncio.Task[None]) -> None:
        """Takes nothing more once the service drains, and ends the stream when all that was taken is answered."""
        await self._service.draining.wait()
        reader.cancel()
        if self._batches:
            await asyncio.wait(self._batches)
        try:
            self._service.check_draining()
        except FlowStackError as error:
            self._answers.put_nowait(error)

    def _start(self, request: pb.ExecuteCommandsRequest) -> None:
        self._unanswered += len(request.commands)
        if self._unanswered >= STREAM_COMMANDS_MAX:
            self._room.clear()
        task = asyncio.create_task(self._run(request))
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _run(self, request: pb.ExecuteCommandsRequest) -> None:
        sequences: list[int] = []
        accepted: list[Command] = []
        answers: list[tuple[int, Command | None, Result]] = []
        for item in request.commands:
            try:
                accepted.append(commands.command_from_proto(item))
                sequences.append(item.sequence)
            except FlowStackError as error:
                answers.append((item.sequence, None, error))
        # Some at a time, so that a large batch does not hold up the commands of others.
        portions = [accepted[start : start + EXECUTE_MAX] for start in range(0, len(accepted), EXECUTE_MAX)]
        if len(portions) == 1:
            results = await self._execute(accepted)
        else:
            done = await asyncio.gather(*(self._execute(portion) for portion in portions))
            results = [result for some in done for result in some]
        answers += zip(sequences, accepted, results, strict=True)
        self._unanswered -= len(request.commands)
        if self._unanswered < STREAM_COMMANDS_MAX:
            self._room.set()
        fill = sessions.fill_session_in_brief if request.session_view == BASIC else sessions.fill_session
        for response in _responses(answers, fill):
            self._answers.put_nowait(response)

    async def _execute(self, commands: list[Command]) -> list[Result]:
        try:
            return await self._service.store.execute(commands)
        except FlowStackError as error:
            return [error] * len(commands)
        except Exception as error:
            # Answered in each command's place: the stream carries other batches too.
            self._log.error("defect", error_type=type(error).__name__, traceback=frames_of(error))
            return [FlowStackError(Reason.INTERNAL, "Quota failed at this command. It is logged.")] * len(commands)


def _responses(
    answers: list[tuple[int, Command | None, Result]], fill: sessions.FillSession
) -> Iterator[pb.ExecuteCommandsResponse]:
    """The answers to a batch, in messages that every client takes; one message even where there are no answers."""
    response = pb.ExecuteCommandsResponse()
    for count, (sequence, command, result) in enumerate(answers, 1):
        sessions.fill_result(response.results.add(), sequence, command, result, fill)
        if count % RESPONSE_CHECK_RESULTS == 0 and response.ByteSize() >= RESPONSE_BYTES:
            yield response
            response = pb.ExecuteCommandsResponse()
    if response.results or not answers:
        yield response
