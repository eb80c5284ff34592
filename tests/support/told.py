"""A gRPC server that answers methods by their path with what it was told, and tells of contracts by reflection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection


@contextmanager
def telling(
    answers: Mapping[str, Sequence[Any]], pool: DescriptorPool | None = None, services: Sequence[str] = ()
) -> Iterator[str]:
    """Serves on loopback, and yields the address.

    Args:
        answers: messages by path, such as `/flowstack.billing.v1.AlertService/WatchAlerts`, streamed whatever is asked.
        pool: the descriptors that reflection tells of.
        services: the services' full names in it; none for no reflection.
    """
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    for path, messages in answers.items():
        _, service, method = path.split("/")
        handler = grpc.unary_stream_rpc_method_handler(
            _streaming(messages), response_serializer=lambda message: message.SerializeToString()
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    if services:
        reflection.enable_server_reflection(services, server, pool)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def _streaming(messages: Sequence[Any]) -> Callable[[bytes, grpc.ServicerContext], Iterator[Any]]:
    return lambda _request, _context: iter(messages)
