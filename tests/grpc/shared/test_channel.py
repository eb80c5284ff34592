"""A service's channel whose connection died without a word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.shared import channel
from services.shared.settings import CommonSettings
from tests.support.relay import Relay

WAITS = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")
IMPATIENT = tuple((name, 200 if name in WAITS else value) for name, value in channel.OPTIONS)


async def quiet(_request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
    """Says one thing, and nothing more until the call ends."""
    yield b"here"
    while True:
        await context.read()


async def test_a_stream_on_a_dead_connection_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "OPTIONS", IMPATIENT)
    server = grpc.aio.server(options=[("grpc.http2.min_ping_interval_without_data_ms", 0)])
    handler: Any = grpc.stream_stream_rpc_method_handler(quiet)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Quiet": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    settings = CommonSettings(_env_file=None, data_dir=tmp_path)  # type: ignore[call-arg]
    with Relay(f"127.0.0.1:{port}") as relay:
        connected = channel.connect(relay.address, settings)
        stream: Any = connected.channel.stream_stream("/test/Quiet")()
        assert await stream.read() == b"here"
        relay.fall_silent()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await connected.close()
    await server.stop(0)
