"""The upstream under all of the router's figures: an OpenAI-compatible server that costs next to nothing.

A bare asyncio protocol in a process of its own. The model's name is the script:

    words-100    100 deltas, each in a write and a turn of the event loop of its own, as a provider sends them
    held         one delta, and then nothing until the caller leaves
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Final, cast

import uvloop

WORD: Final = "word "
"""The text of every delta, by which the readers count."""

_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
_LAST: Final = b"0\r\n\r\n"


def _chunk(model: str, choices: str, usage: str = "null") -> bytes:
    data = (
        '{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1790000000,'
        f'"model":"{model}","system_fingerprint":"fp_bench","choices":{choices},"usage":{usage}}}'
    )
    return _framed(f"data: {data}\n\n".encode())


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class _Script:
    """The bytes of one model's answer."""

    def __init__(self, model: str) -> None:
        kind, _, count = model.partition("-")
        self.words = int(count or 1)
        self.ends = kind == "words"
        self.delta = _chunk(model, f'[{{"index":0,"delta":{{"content":"{WORD}"}},"finish_reason":null}}]')
        usage = f'{{"prompt_tokens":5,"completion_tokens":{self.words},"total_tokens":{self.words + 5}}}'
        self.end = b"".join(
            (
                _chunk(model, '[{"index":0,"delta":{},"finish_reason":"stop"}]'),
                _chunk(model, "[]", usage),
                _framed(b"data: [DONE]\n\n"),
                _LAST,
            )
        )


class Upstream(asyncio.Protocol):
    """One connection, one request after the other."""

    def __init__(self, scripts: dict[str, _Script]) -> None:
        self._scripts = scripts
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._paused = False
        self._waiting: tuple[_Script, int] | None = None
        """What is to be sent once the caller reads again: its script, and how many deltas are left."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops sending."""
        self._transport = None

    def pause_writing(self) -> None:
        """The caller does not keep up."""
        self._paused = True

    def resume_writing(self) -> None:
        """The caller reads again."""
        self._paused = False
        if self._waiting is not None:
            (script, left), self._waiting = self._waiting, None
            self._send(script.delta, script, left)

    def data_received(self, data: bytes) -> None:
        """Answers once a request is whole."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(
            (
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ),
            0,
        )
        if len(body) < length:
            return
        self._received = body[length:]
        model = json.loads(body[:length])["model"]
        script = self._scripts.get(model)
        if script is None:
            script = self._scripts[model] = _Script(model)
        self._send(_HEAD + script.delta, script, script.words - 1)

    def _send(self, data: bytes, script: _Script, left: int) -> None:
        if self._transport is None:
            return
        self._transport.write(data)
        if left and self._paused:
            self._waiting = (script, left - 1)
        elif left:
            self._loop.call_soon(self._send, script.delta, script, left - 1)
        elif script.ends:
            self._transport.write(script.end)


async def main() -> None:
    """Serves until killed."""
    scripts: dict[str, _Script] = {}
    server = await asyncio.get_running_loop().create_server(
        lambda: Upstream(scripts), "127.0.0.1", int(sys.argv[1]), backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
