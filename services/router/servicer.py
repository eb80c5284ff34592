"""RouterService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import grpc
from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.router.v1 import router_service_pb2_grpc as pb_grpc

from services.router.convert import event_to_proto, request_from_proto
from services.router.domain.request import Customer
from services.router.inbox import Inbox
from services.router.models import list_models
from services.router.service import RouterService, SessionStream
from services.shared.auth import Policy, current_caller

POLICIES: Final[Mapping[str, Policy]] = MappingProxyType(
    {"Complete": Policy.CUSTOMER, "Chat": Policy.CUSTOMER, "ListModels": Policy.CUSTOMER}
)

Events = AsyncIterator[pb.CompletionEvent]
_Context = grpc.aio.ServicerContext


class RouterServicer(pb_grpc.RouterServiceServicer):
    """Converts, and leaves the rest to the service."""

    def __init__(self, service: RouterService) -> None:
        self._service = service

    def Complete(
        self, request: pb.CompleteRequest, context: _Context[pb.CompleteRequest, pb.CompletionEvent]
    ) -> Events:
        """See the proto."""
        # Not a generator itself: every event would pass through it.
        return _events(self._service.complete(_customer(), request_from_proto(request)), context)

    async def Chat(
        self,
        request_iterator: AsyncIterator[pb.ChatRequest],
        context: _Context[pb.ChatRequest, pb.CompletionEvent],
    ) -> Events:
        """See the proto."""
        inbox = Inbox(request_iterator, self._service.limits.first_message_s)
        _when_done(context, inbox.close)
        with self._service.opening(inbox.refuse):
            start = await inbox.first()
        stream = self._service.chat(_customer(), request_from_proto(start), inbox)
        async for event in _events(stream, context):
            yield event

    async def ListModels(
        self,
        request: pb.ListModelsRequest,
        context: _Context[pb.ListModelsRequest, pb.ListModelsResponse],
    ) -> pb.ListModelsResponse:
        """See the proto."""
        quota = await self._service.quota_of(_customer())
        return list_models(request, self._service.lineup, quota)


async def _events(stream: SessionStream, context: _Context[Any, pb.CompletionEvent]) -> Events:
    # However the call ends, the session learns of it: a cancelled generator may be closed late.
    _when_done(context, stream.abandon)
    while events := await stream.take():
        for event in events:
            yield event_to_proto(event)


def _when_done(context: _Context[Any, Any], callback: Callable[[], None]) -> None:
    # types-grpcio declares the callback as a class of its own, which no function is.
    context.add_done_callback(lambda _: callback())  # type: ignore[arg-type]


def _customer() -> Customer:
    caller = current_caller()
    return Customer(caller.account_id, caller.api_key_id)
