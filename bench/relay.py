"""The reference of the router's throughput: a bare grpc.aio server that forwards an upstream's bytes as they come.

It authenticates nobody, counts nothing, parses nothing and keeps nothing: what is left is the price of the two sockets.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import grpc
import uvloop

METHOD: Final = "/bench.Relay/Forward"
"""Takes the body of a chat completion, and streams what the upstream answers, as bytes."""


class _Relay(grpc.GenericRpcHandler):
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._handler: Any = grpc.unary_stream_rpc_method_handler(self._forward)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The one method."""
        return self._handler

    async def _forward(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        async with self._session.post(self._url, data=request) as response:
            while chunk := await response.content.readany():
                yield chunk


async def main() -> None:
    """Serves until killed."""
    address, url = sys.argv[1:]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Relay(session, url),))
        server.add_insecure_port(address)
        await server.start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
