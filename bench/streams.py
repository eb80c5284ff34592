"""Callers of streamed completions: through the router, the relay, LiteLLM, and of the upstream itself."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import grpc
import msgspec
from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.router.v1 import router_service_pb2_grpc as pb_grpc

from bench.relay import METHOD
from bench.upstream import WORD
from services.shared.channel import Metadata

PROMPT: Final = "Say a hundred words."
TIMEOUT_SECONDS: Final = 120


@dataclass
class Run:
    """What some callers got."""

    chunks: int = 0
    streams: int = 0
    seconds: float = 0.0
    first_tokens_s: list[float] = field(default_factory=list)

    @property
    def chunks_per_second(self) -> float:
        """Upstream deltas delivered, coalesced or not."""
        return self.chunks / self.seconds

    @property
    def streams_per_second(self) -> float:
        """Whole completions."""
        return self.streams / self.seconds


class Caller(ABC):
    """One way to the upstream."""

    @abstractmethod
    def texts(self, model: str) -> AsyncIterator[bytes | str]:
        """One completion, as the pieces that hold its text."""

    async def run(self, model: str, callers: int, streams_each: int) -> Run:
        """Lets so many callers make so many completions each, one after the other."""
        words = int(model.partition("-")[2])
        run = Run()
        started_s = time.perf_counter()
        await asyncio.gather(*(self._calls(model, words, streams_each, run) for _ in range(callers)))
        run.seconds = time.perf_counter() - started_s
        return run

    async def _calls(self, model: str, words: int, count: int, run: Run) -> None:
        for _ in range(count):
            began_s = time.perf_counter()
            found, first_s = 0, None
            kept: list[bytes | str] = []
            async for text in self.texts(model):
                if first_s is None and len(text) and _words_in(text):
                    first_s = time.perf_counter() - began_s
                kept.append(text)
            found = _words_in(b"".join(t.encode() if isinstance(t, str) else t for t in kept))
            if found != words or first_s is None:
                raise AssertionError(f"{type(self).__name__}: {found} of {words} chunks arrived")
            run.chunks += found
            run.streams += 1
            run.first_tokens_s.append(first_s)


def _words_in(text: bytes | str) -> int:
    return text.count(WORD) if isinstance(text, str) else text.count(WORD.encode())


def completion_body(model: str) -> bytes:
    """The request that a caller of the HTTP format sends."""
    return msgspec.json.encode(
        {
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": PROMPT}],
        }
    )


class RouterCaller(Caller):
    """Through the router, with the customer's own provider key."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata) -> None:
        self._stub = pb_grpc.RouterServiceStub(channel)
        self._metadata = metadata

    def call(self, model: str) -> grpc.aio.UnaryStreamCall[pb.CompleteRequest, pb.CompletionEvent]:
        """One running completion."""
        request = pb.CompleteRequest(
            provider="openai",
            model=model,
            messages=[pb.Message(role=pb.MESSAGE_ROLE_USER, content=[pb.ContentPart(text=PROMPT)])],
            byok=[pb.ByokCredentials(openai=pb.OpenAiCredentials(api_key="sk-bench-0123456789abcdef"))],
        )
        return self._stub.Complete(request, metadata=self._metadata)

    async def texts(self, model: str) -> AsyncIterator[bytes | str]:
        """See Caller."""
        async for event in self.call(model):
            yield event.text_delta


class RelayCaller(Caller):
    """Through the bare relay."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._method: Any = channel.unary_stream(METHOD)

    async def texts(self, model: str) -> AsyncIterator[bytes | str]:
        """See Caller."""
        async for data in self._method(completion_body(model)):
            yield data


class HttpCaller(Caller):
    """Of the upstream itself, or of another proxy that speaks its format."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str = "sk-bench") -> None:
        self._session = session
        self._url = url
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}

    async def texts(self, model: str) -> AsyncIterator[bytes | str]:
        """See Caller."""
        async with self._session.post(self._url, data=completion_body(model), headers=self._headers) as response:
            response.raise_for_status()
            while data := await response.content.readany():
                yield data


def http_session() -> aiohttp.ClientSession:
    """A session that neither limits connections nor gives up early, and leaves a server before it is left."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3), timeout=timeout)
