"""Health checks, as balancers and supervisors ask for them.

gRPC's own servicer never ends a Watch, so that one watcher would hold a server that is to stop for its whole grace.
This one sends its watchers away, after they have been told that nothing is served here any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.shared.errors import FlowStackError, Reason

NAME: Final = "grpc.health.v1.Health"
METHODS: Final = tuple(f"/{NAME}/{name}" for name in ("Check", "Watch", "List"))

_Status = health_pb2.HealthCheckResponse
_Context = grpc.aio.ServicerContext


class Health(health_pb2_grpc.HealthServicer):
    """The state of every service of a host; nothing is known until `serve`."""

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._is_closed = False
        self._changed = asyncio.Event()

    def serve(self, names: Iterable[str]) -> None:
        """Says that these services serve, and with them the host as a whole, whose name is empty."""
        self._set(dict.fromkeys((*names, ""), _Status.SERVING))

    def announce_drain(self) -> None:
        """Says that nothing serves any more."""
        self._set(dict.fromkeys(self._statuses, _Status.NOT_SERVING))

    def close(self) -> None:
        """Ends every watch, those to come as well."""
        self._is_closed = True
        self._set({})

    def _set(self, statuses: dict[str, int]) -> None:
        self._statuses |= statuses
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: _Context[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """The state now; NOT_FOUND for a service that is not here."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "No such service is served here.")
        return _Status(status=status)

    async def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: _Context[Any, Any],  # noqa: ARG002  # gRPC passes it
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The state now and after each change, until the server stops."""
        last = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, _Status.SERVICE_UNKNOWN)
            if status != last:
                last = status
                yield _Status(status=status)
            elif self._is_closed:
                raise FlowStackError(Reason.SHUTTING_DOWN, "This server is shutting down. Watch another one.")
            else:
                await changed.wait()
