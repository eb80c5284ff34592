"""Compares the contract that a running service tells by reflection with the one that this client was made for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_database import DescriptorDatabase
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from flowstack import _methods
from flowstack._connection import CALL_SECONDS
from flowstack._endpoints import ServiceName
from flowstack._methods import Method

PACKAGES: Final = "flowstack."


@dataclass(frozen=True)
class Difference:
    """What only one side has, as names such as `VaultService.Query` and `QueryRequest.limit = 5`, sorted."""

    missing: list[str]
    """Known to the client, not to the service."""
    unknown: list[str]
    """Known to the service, not to the client."""


def difference(channel: grpc.Channel, service: ServiceName) -> Difference:
    """How the contract of a service differs from the client's.

    Args:
        channel: to the service.
        service: which one.

    Raises:
        grpc.RpcError: the service does not answer, or not to reflection.
    """
    names = _services_of(service)
    ours, theirs = descriptor_pool.Default(), _pool_of(channel, names)
    known = {name for full_name in names for name in _names(ours, full_name)}
    found = {name for full_name in names for name in _names(theirs, full_name)}
    return Difference(sorted(known - found), sorted(found - known))


def _services_of(service: ServiceName) -> list[str]:
    """The full names of the gRPC services that the client uses at a service."""
    methods = (one for owner in vars(_methods).values() if isinstance(owner, type) for one in vars(owner).values())
    return sorted({one.path.split("/")[1] for one in methods if isinstance(one, Method) and one.service == service})


def _pool_of(channel: grpc.Channel, names: list[str]) -> descriptor_pool.DescriptorPool:
    """The descriptors that a server tells of these services. Its answers hold all files that a service's needs."""
    requests = [ServerReflectionRequest(file_containing_symbol=name) for name in names]
    stub: Any = ServerReflectionStub(channel)
    database: Any = DescriptorDatabase()
    for answer in stub.ServerReflectionInfo(iter(requests), timeout=CALL_SECONDS):
        for file in answer.file_descriptor_response.file_descriptor_proto:
            database.Add(FileDescriptorProto.FromString(file))
    return descriptor_pool.DescriptorPool(descriptor_db=database)


def _names(pool: descriptor_pool.DescriptorPool, service_name: str) -> Iterator[str]:
    """The methods of a gRPC service, and the fields and values of everything that they take and answer."""
    try:
        service: Any = pool.FindServiceByName(service_name)
    except KeyError:
        return
    seen: set[str] = set()
    for method in service.methods:
        yield f"{service.name}.{method.name}"
        yield from _fields(method.input_type, seen)
        yield from _fields(method.output_type, seen)


def _fields(message: Any, seen: set[str]) -> Iterator[str]:
    if message.full_name in seen or not message.full_name.startswith(PACKAGES):
        return
    seen.add(message.full_name)
    for field in message.fields:
        yield f"{message.name}.{field.name} = {field.number}"
        if field.enum_type is not None and field.enum_type.full_name.startswith(PACKAGES):
            yield from (f"{field.enum_type.name}.{value.name} = {value.number}" for value in field.enum_type.values)
        if field.message_type is not None:
            yield from _fields(field.message_type, seen)
