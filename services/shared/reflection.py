"""Server reflection, v1 and v1alpha: what grpcurl reads to list, describe and call.

grpcio-reflection ships v1alpha alone. The two protocols are the same on the wire, so one servicer answers under both
names; v1's descriptor is v1alpha's under its own package name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

V1: Final = "grpc.reflection.v1.ServerReflection"
V1ALPHA: Final = "grpc.reflection.v1alpha.ServerReflection"
NAMES: Final = (V1, V1ALPHA)
METHODS: Final = tuple(f"/{name}/ServerReflectionInfo" for name in NAMES)


def _register_v1_descriptor() -> None:
    alpha = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    text = alpha.SerializeToString()
    v1 = FileDescriptorProto.FromString(text)
    v1.name = "grpc/reflection/v1/reflection.proto"
    v1.package = "grpc.reflection.v1"
    for message in v1.message_type:
        for field in (field for field in message.field if field.type_name):
            field.type_name = field.type_name.replace(".grpc.reflection.v1alpha.", ".grpc.reflection.v1.")
    for method in v1.service[0].method:
        method.input_type = method.input_type.replace(".v1alpha.", ".v1.")
        method.output_type = method.output_type.replace(".v1alpha.", ".v1.")
    descriptor_pool.Default().AddSerializedFile(v1.SerializeToString())


_register_v1_descriptor()


def add_reflection(server: Any, names: Sequence[str], closing: asyncio.Event) -> None:
    """Serves reflection of the services `names`, and of reflection itself, under both versions, until `closing`."""
    servicer = _ClosingReflection([*names, *NAMES], closing)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(V1, {"ServerReflectionInfo": handler}),))


class _ClosingReflection:
    """Ends its streams when the server is to stop: a client that keeps one open must not hold the server."""

    def __init__(self, names: Sequence[str], closing: asyncio.Event) -> None:
        self._inner: Any = ReflectionServicer(names)
        self._closing = closing

    async def ServerReflectionInfo(
        self,
        request_iterator: AsyncIterator[reflection_pb2.ServerReflectionRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """See the protocol."""
        requests = _until(self._closing, request_iterator)
        async for response in self._inner.ServerReflectionInfo(requests, context):
            yield response


async def _until(
    closing: asyncio.Event, requests: AsyncIterator[reflection_pb2.ServerReflectionRequest]
) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    """The requests that come before `closing`."""
    closed = asyncio.create_task(closing.wait())
    following = asyncio.create_task(_next(requests))
    try:
        while True:
            await asyncio.wait((following, closed), return_when=asyncio.FIRST_COMPLETED)
            request = following.result() if following.done() else None
            if request is None:
                return
            yield request
            following = asyncio.create_task(_next(requests))
    finally:
        closed.cancel()
        following.cancel()


async def _next(
    requests: AsyncIterator[reflection_pb2.ServerReflectionRequest],
) -> reflection_pb2.ServerReflectionRequest | None:
    return await anext(requests, None)
