"""A server that takes connections and says nothing, not even its part of a TLS handshake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.dialects import Dialect, OpenAiDialect
from tests.support.fault_server import FaultServer


class SilentServer(FaultServer):
    """A fault server that nobody gets to ask: where its clients want TLS they stay in the handshake."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect)
        self._connected = asyncio.Event()

    async def connected(self) -> None:
        """Waits for a connection whose client has begun to speak."""
        await asyncio.wait_for(self._connected.wait(), 20)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads, until the client closes."""
        try:
            while await reader.read(4096):
                self._connected.set()
        except OSError:
            # It may also have been reset.
            pass
        finally:
            writer.close()


@asynccontextmanager
async def silent_server(dialect: Dialect | None = None) -> AsyncIterator[SilentServer]:
    """A running server, at an address of https."""
    server = SilentServer(dialect or OpenAiDialect())
    listener = await asyncio.start_server(server.take, "127.0.0.1", 0)
    server.url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()
