"""Waits until services answer their health checks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.shared.settings import CommonSettings


def admin_addresses(settings: CommonSettings, names: tuple[str, ...]) -> dict[str, str]:
    """The admin address of each service, which is plaintext whatever the other ports are."""
    return {name: f"127.0.0.1:{settings.admin_port_base + index}" for index, name in enumerate(names)}


async def wait_until_serving(addresses: Mapping[str, str], timeout_s: float) -> list[str]:
    """Waits until every service serves; answers the names of those that did not within the time."""
    found = await asyncio.gather(*(_serves(address, timeout_s) for address in addresses.values()))
    return [name for name, serves in zip(addresses, found, strict=True) if not serves]


async def _serves(address: str, timeout_s: float) -> bool:
    options = (("grpc.max_reconnect_backoff_ms", 100), ("grpc.initial_reconnect_backoff_ms", 50))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its types leave Watch out
        call = stub.Watch(health_pb2.HealthCheckRequest(), timeout=timeout_s, wait_for_ready=True)
        try:
            async for response in call:
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return True
        except grpc.aio.AioRpcError:
            return False
        finally:
            # A stream that is left is not ended by itself, and would hold its connection open.
            call.cancel()
    return False
