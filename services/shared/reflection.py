"""Server reflection, v1 and v1alpha: what grpcurl reads to list, describe and call.

grpcio-reflection ships v1alpha alone. The two protocols are the same on the wire, so one servicer answers under both
names; v1's descriptor is v1alpha's under its own package name.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def add_reflection(server: Any, names: Sequence[str]) -> None:
    """Serves reflection of the services `names`, and of reflection itself, under both versions."""
    servicer: Any = ReflectionServicer([*names, *NAMES])
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(V1, {"ServerReflectionInfo": handler}),))
