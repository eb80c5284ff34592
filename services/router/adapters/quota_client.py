"""Quota over one long-lived stream of batches.

Whatever is queued while the last batches are on their way goes out as the next one: an idle system sends each command
at once, a busy one sends large batches by itself. A few commands wait for the batch before them, but not for long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import grpc
from flowstack_protos.quota.v1 import quota_service_pb2 as quota_pb
from flowstack_protos.quota.v1 import quota_service_pb2_grpc as quota_grpc

from services.router.adapters.quota_convert import (
    commit_to_proto,
    grant_from_proto,
    quota_from_proto,
    release_to_proto,
    reserve_to_proto,
    resolution_from_proto,
)
from services.router.domain.outcome import Outcome, ReleaseReason
from services.router.domain.quota import Grant, Quota, Reservation, Resolution
from services.shared.channel import ServiceChannel
from services.shared.errors import FlowStackError, Reason
from services.shared.log import get_logger
from services.shared.status import error_from_rpc, error_from_status

BATCH_COMMANDS_MAX: Final = 128
BATCHES_IN_FLIGHT_MAX: Final = 6
BATCH_COMMANDS_WORTHWHILE: Final = 16
"""So many commands go out although a batch is on its way."""
HOLD_SECONDS: Final = 0.004
"""How long fewer of them wait for its answer. Quota decides one group after the other, so that they would mostly wait
there; together they cost router, quota and billing one message and one group instead of several."""
QUEUE_COMMANDS_MAX: Final = 20_000
"""Beyond this quota is not keeping up, and waiting longer helps nobody."""
RECONNECT_SECONDS: Final = 0.05

T = TypeVar("T")
_Stream = grpc.aio.StreamStreamCall[quota_pb.ExecuteCommandsRequest, quota_pb.ExecuteCommandsResponse]


@dataclass(slots=True)
class _Batch:
    """A batch on its way: how many of its commands are unanswered, and when it was sent."""

    unanswered: int
    sent_s: float


@dataclass(slots=True, eq=False)
class _Pending:
    """A command that waits for its answer. `batch` is None until it has been sent."""

    command: quota_pb.SessionCommand
    answer: asyncio.Future[quota_pb.SessionCommandResult]
    overdue_s: float
    """When its caller stops waiting, by the loop's clock."""
    batch: _Batch | None = None


class QuotaClient:
    """The quota service, as the router's QuotaPort.

    No command is repeated here. One whose answer does not come, because the stream broke or the wait was over, ends
    as QUOTA_UNAVAILABLE, and the session decides: a commit or release is repeated, a reservation is released.

    Args:
        channel: To the quota service.
        answer_s: How long a command waits for its answer, in seconds, the wait for a connection included.
    """

    def __init__(self, channel: ServiceChannel, answer_s: float = 2.0) -> None:
        self._stub = quota_grpc.QuotaServiceStub(channel.channel)
        self._metadata = channel.metadata
        self._answer_s = answer_s
        self._queue: deque[_Pending] = deque()
        self._waiting: deque[_Pending] = deque()
        """Every command that may become overdue, oldest first: one timer serves all, where each call's own timer took
        as long as its conversion."""
        self._timer: asyncio.TimerHandle | None = None
        self._sent: dict[int, _Pending] = {}
        self._batches = 0
        self._sent_s = 0.0
        """When the last batch went out, by the loop's clock."""
        self._hold: asyncio.TimerHandle | None = None
        self._sequence = 0
        self._work = asyncio.Event()
        self._call: _Stream | None = None
        self._received_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._log = get_logger()

    async def start(self) -> None:
        """Begins to connect, and to reconnect whenever the stream breaks."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends the stream; commands that are unanswered fail."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        if self._hold is not None:
            self._hold.cancel()
        self._fail_queue()

    async def reserve(self, reservation: Reservation) -> Grant:
        """Holds one unit; see the port."""
        result = await self._execute(quota_pb.SessionCommand(reserve=reserve_to_proto(reservation)))
        return grant_from_proto(result.reserve)

    async def commit(self, account_id: str, session_id: str, outcome: Outcome) -> Resolution:
        """Counts a session; see the port."""
        result = await self._execute(quota_pb.SessionCommand(commit=commit_to_proto(account_id, session_id, outcome)))
        return resolution_from_proto(result.commit)

    async def release(
        self, account_id: str, session_id: str, reason: ReleaseReason, outcome: Outcome | None
    ) -> Resolution:
        """Gives a unit back; see the port."""
        result = await self._execute(
            quota_pb.SessionCommand(release=release_to_proto(account_id, session_id, reason, outcome))
        )
        return resolution_from_proto(result.release)

    async def get_quota(self, account_id: str) -> Quota:
        """Reads an account's quota; see the port."""
        try:
            response = await self._stub.GetQuota(
                quota_pb.GetQuotaRequest(account_id=account_id), metadata=self._metadata, timeout=self._answer_s
            )
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) or _unavailable() from None
        return quota_from_proto(response.quota)

    async def _execute(self, command: quota_pb.SessionCommand) -> quota_pb.SessionCommandResult:
        if len(self._queue) >= QUEUE_COMMANDS_MAX:
            raise _unavailable()
        loop = asyncio.get_running_loop()
        pending = _Pending(command, loop.create_future(), loop.time() + self._answer_s)
        self._queue.append(pending)
        self._waiting.append(pending)
        if self._timer is None:
            self._timer = loop.call_at(pending.overdue_s, self._fail_overdue)
        self._work.set()
        result = await pending.answer
        if result.WhichOneof("result") == "error":
            raise error_from_status(result.error) or _unavailable()
        return result

    def _fail_overdue(self) -> None:
        """Ends the wait for answers that are overdue, and gives up a stream on which nothing has come meanwhile."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._waiting and (self._waiting[0].answer.done() or self._waiting[0].overdue_s <= loop.time()):
            pending = self._waiting.popleft()
            if pending.answer.done():
                continue
            pending.answer.set_exception(_unavailable())
            # It may be dead without an end where nothing has come since this command was sent.
            if pending.batch is not None and self._received_s < pending.batch.sent_s and self._call is not None:
                self._call.cancel()
        if self._waiting:
            self._timer = loop.call_at(self._waiting[0].overdue_s, self._fail_overdue)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            call = self._stub.ExecuteCommands(metadata=self._metadata, wait_for_ready=True)
            writer: asyncio.Task[None] | None = None
            try:
                await call.wait_for_connection()
                self._call = call
                writer = asyncio.create_task(self._write(call, loop.time))
                async for response in call:
                    self._received_s = loop.time()
                    self._answer(response)
            except grpc.aio.AioRpcError as error:
                self._log.warning("quota stream broke", code=error.code().name)
            except asyncio.CancelledError:
                # Also what a call raises that was given up as overdue; only a cancelled task goes on to end.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
            finally:
                self._call = None
                call.cancel()
                if writer is not None:
                    writer.cancel()
                    await asyncio.wait((writer,))
                self._fail_sent()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _write(self, call: _Stream, now_s: Callable[[], float]) -> None:
        while True:
            await self._work.wait()
            batch = self._next_batch(now_s())
            if batch is None:
                self._work.clear()
                continue
            try:
                await call.write(batch)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                # The reader learns why, and fails what was sent.
                return

    def _next_batch(self, now_s: float) -> quota_pb.ExecuteCommandsRequest | None:
        """What is to be sent now; None when there is nothing, or enough on its way."""
        if self._batches >= BATCHES_IN_FLIGHT_MAX or self._holds_back(now_s):
            return None
        commands: list[quota_pb.SessionCommand] = []
        batch = _Batch(0, now_s)
        while self._queue and len(commands) < BATCH_COMMANDS_MAX:
            pending = self._queue.popleft()
            if pending.answer.done():
                # Its caller has stopped waiting, and it was never sent.
                continue
            self._sequence += 1
            pending.command.sequence = self._sequence
            pending.batch = batch
            self._sent[self._sequence] = pending
            commands.append(pending.command)
        if not commands:
            return None
        batch.unanswered = len(commands)
        self._batches += 1
        self._sent_s = now_s
        # Of the session only the state is read; what was asked for is known here.
        return quota_pb.ExecuteCommandsRequest(commands=commands, session_view=quota_pb.SESSION_VIEW_BASIC)

    def _holds_back(self, now_s: float) -> bool:
        """Whether what is queued waits a little for the batch that is on its way."""
        held_s = self._sent_s + HOLD_SECONDS - now_s
        if not self._batches or held_s <= 0 or not 0 < len(self._queue) < BATCH_COMMANDS_WORTHWHILE:
            return False
        if self._hold is None:
            self._hold = asyncio.get_running_loop().call_later(held_s, self._held_long_enough)
        return True

    def _held_long_enough(self) -> None:
        self._hold = None
        self._work.set()

    def _answer(self, response: quota_pb.ExecuteCommandsResponse) -> None:
        waiting = self._waiting
        for result in response.results:
            pending = self._sent.pop(result.sequence, None)
            if pending is None:
                continue
            if not pending.answer.done():
                pending.answer.set_result(result)
            batch = pending.batch
            if batch is not None:
                batch.unanswered -= 1
                if batch.unanswered == 0:
                    self._batches -= 1
                    self._work.set()
        while waiting and waiting[0].answer.done():
            waiting.popleft()

    def _fail_sent(self) -> None:
        for pending in self._sent.values():
            if not pending.answer.done():
                pending.answer.set_exception(_unavailable())
        self._sent.clear()
        self._batches = 0
        self._work.set()

    def _fail_queue(self) -> None:
        for pending in self._queue:
            if not pending.answer.done():
                pending.answer.set_exception(_unavailable())
        self._queue.clear()


def _unavailable() -> FlowStackError:
    return FlowStackError(
        Reason.QUOTA_UNAVAILABLE, "Quota cannot be reached or did not answer in time. No session starts; try again."
    )
