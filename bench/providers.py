"""What it costs to take an answer apart, a chunk, beside the official SDKs' typed streams of the same bytes.

All in this process and without a network: each read brings one delta, as from a provider that writes them one by one.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anthropic
import boto3
import httpx2
import openai
from botocore.awsrequest import AWSResponse

from bench.report import PAIRS, Figure, Report, median_of_pairs
from services.router.domain.events import Finish
from services.router.providers.anthropic_stream import AnthropicWire
from services.router.providers.bedrock_stream import BedrockWire
from services.router.providers.openai_stream import OpenAiWire
from services.router.providers.stall import StallGuard
from services.router.providers.stream import CallStream, Wire

CHUNKS = 2_000
STREAMS = 5
TEXT = " word"

Work = Callable[[], Awaitable[int]]
"""Reads one answer; answers how many deltas of text it held."""


async def run(report: Report) -> None:
    """Measures all three."""
    for name, raw, wire, typed in (
        ("openai", openai_answer(), OpenAiWire, openai_typed),
        ("anthropic", anthropic_answer(), lambda: AnthropicWire(keep_blocks=False), anthropic_typed),
        ("bedrock", bedrock_answer(), lambda: BedrockWire(keep_blocks=False), bedrock_typed),
    ):
        ours, theirs = _ours(raw, wire), typed(raw)
        pairs = []
        for work in (ours, theirs):
            await _microseconds(work)  # warm
        for _ in range(PAIRS):
            reference = await _microseconds(theirs)
            pairs.append((await _microseconds(ours), reference))
        value, reference, ratio = median_of_pairs(pairs)
        report.add(
            Figure(
                f"decoding {name}'s stream",
                f"1 process, no network, {CHUNKS:,} deltas, one a read",
                value,
                "µs a chunk",
                "µs a chunk of the SDK's typed stream",
                reference,
                ratio,
            )
        )


async def _microseconds(work: Work) -> float:
    began = time.perf_counter()
    for _ in range(STREAMS):
        assert await work() == CHUNKS
    return (time.perf_counter() - began) / (STREAMS * CHUNKS) * 1e6


class _Body:
    """A body that has arrived already."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = iter(chunks)

    async def read(self) -> bytes:
        return next(self._chunks, b"")


def _ours(raw: list[bytes], wire: Callable[[], Wire]) -> Work:
    async def work() -> int:
        guard = StallGuard(60.0)
        stream = CallStream(_Body(raw), wire(), guard, "", ())  # type: ignore[arg-type]  # all that is used of one
        count, last = 0, None
        while not isinstance(last, Finish):
            events = await stream.read()
            last = events[-1]
            count += len(events)
        guard.close()
        return count - 1

    return work


class _Chunks(httpx2.AsyncByteStream):
    """The same bytes, as httpx2 reads them."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


def _client(raw: list[bytes]) -> httpx2.AsyncClient:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Chunks(raw))

    return httpx2.AsyncClient(transport=httpx2.MockTransport(answer))


def openai_typed(raw: list[bytes]) -> Work:
    """OpenAI's SDK, as its documentation reads a stream."""
    client = openai.AsyncOpenAI(api_key="x", base_url="http://bench/v1", http_client=_client(raw))

    async def work() -> int:
        count = 0
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        )
        async for chunk in stream:
            count += bool(chunk.choices and chunk.choices[0].delta.content)
        return count

    return work


def anthropic_typed(raw: list[bytes]) -> Work:
    """Anthropic's SDK, as its documentation reads a stream."""
    client = anthropic.AsyncAnthropic(api_key="x", base_url="http://bench", http_client=_client(raw))

    async def work() -> int:
        count = 0
        stream = await client.messages.create(
            model="claude-sonnet-4-5", max_tokens=9, messages=[{"role": "user", "content": "x"}], stream=True
        )
        async for event in stream:
            count += event.type == "content_block_delta"
        return count

    return work


class _Raw:
    """The same bytes, as botocore reads them."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    def stream(self) -> Iterator[bytes]:
        yield from self._chunks

    def close(self) -> None:
        pass


def bedrock_typed(raw: list[bytes]) -> Work:
    """boto3, in the thread that it needs."""
    client = boto3.client(
        "bedrock-runtime", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x", endpoint_url="http://bench"
    )

    def answer(request: Any, **_: Any) -> AWSResponse:
        return AWSResponse(request.url, 200, {"content-type": "application/vnd.amazon.eventstream"}, _Raw(raw))

    client.meta.events.register("before-send.bedrock-runtime.ConverseStream", answer)

    def read() -> int:
        messages = [{"role": "user", "content": [{"text": "x"}]}]
        stream = client.converse_stream(modelId="m", messages=messages)["stream"]
        return sum("contentBlockDelta" in event for event in stream)

    async def work() -> int:
        return await asyncio.to_thread(read)

    return work


def _sse(type_: str, **data: Any) -> bytes:
    head = f"event: {type_}\n" if type_ else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def openai_answer() -> list[bytes]:
    """An answer of CHUNKS deltas, with the fields that OpenAI sends in each."""

    def chunk(finish: str | None = None, **delta: str) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06"}
        return _sse("", **common, system_fingerprint="fp_1", choices=[choice], usage=None, obfuscation="aB3dE")

    return [*(chunk(content=TEXT) for _ in range(CHUNKS)), chunk("stop"), b"data: [DONE]\n\n"]


def anthropic_answer() -> list[bytes]:
    """An answer of CHUNKS deltas, as Anthropic sends it."""
    message: dict[str, Any] = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "c",
        "stop_reason": None,
    }
    usage = {"input_tokens": 1, "output_tokens": 1}
    delta = {"type": "text_delta", "text": TEXT}
    return [
        _sse("message_start", type="message_start", message={**message, "stop_sequence": None, "usage": usage}),
        _sse("content_block_start", type="content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(_sse("content_block_delta", type="content_block_delta", index=0, delta=delta) for _ in range(CHUNKS)),
        _sse("content_block_stop", type="content_block_stop", index=0),
        _sse(
            "message_delta",
            type="message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": CHUNKS},
        ),
        _sse("message_stop", type="message_stop"),
    ]


def bedrock_answer() -> list[bytes]:
    """An answer of CHUNKS deltas, as Bedrock sends it."""
    return [
        _frame("messageStart", role="assistant"),
        *(_frame("contentBlockDelta", contentBlockIndex=0, delta={"text": TEXT}) for _ in range(CHUNKS)),
        _frame("contentBlockStop", contentBlockIndex=0),
        _frame("messageStop", stopReason="end_turn"),
        _frame("metadata", usage={"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}, metrics={"latencyMs": 1}),
    ]


def _frame(type_: str, **payload: Any) -> bytes:
    """One frame of AWS's event stream encoding."""
    headers = {":event-type": type_, ":content-type": "application/json", ":message-type": "event"}
    head = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    body = json.dumps({**payload, "p": "abcdefghijklmnop"}).encode()
    prelude = struct.pack("!II", 16 + len(head) + len(body), len(head))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    frame = prelude + head + body
    return frame + struct.pack("!I", zlib.crc32(frame))
