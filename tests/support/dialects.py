"""The three formats in which providers answer, as the fault server speaks them, and the clients that are tested.

Written from the providers' published formats, and with nothing of the parsers under test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from services.router.domain.request import (
    AnthropicCredentials,
    OpenAiCredentials,
)
from services.router.providers.anthropic import AnthropicProvider, AnthropicSettings
from services.router.providers.openai import OpenAiProvider, OpenAiSettings
from services.router.providers.port import Provider, Timeouts
from services.router.providers.traits import ModelTraits
from services.shared.secret import Secret
from tests.support.bedrock_dialect import BedrockDialect
from tests.support.keys import MANAGED

FAILURE_KINDS = ("overloaded", "rate", "credentials", "request")
"""What a provider can report of itself in the middle of a stream, whatever its words."""


class Dialect(Protocol):
    """One format."""

    name: str
    path: str
    """Where a model is asked, `{model}` standing for its name."""
    request_id_header: str
    content_type: str
    model: str

    def provider(
        self, url: str, *, managed: bool = True, stall_s: float = 30.0, models: Mapping[str, ModelTraits] | None = None
    ) -> Provider:
        """The client under test, of a server at `url`."""
        ...

    def begin(self) -> bytes:
        """What comes before the first delta."""
        ...

    def text(self, word: str) -> bytes:
        """A delta of text."""
        ...

    def reasoning(self, word: str) -> bytes:
        """A delta of reasoning."""
        ...

    def call(self, index: int, id_: str, name: str, *arguments: str) -> list[bytes]:
        """A tool call in pieces."""
        ...

    def finish(self, reason: str = "stop", **usage: int) -> list[bytes]:
        """The end of an answer: `stop`, `length` or `tools`. The usage has OpenAI's names."""
        ...

    def failure(self, kind: str, message: str) -> bytes:
        """A failure in the middle of a stream: one of FAILURE_KINDS."""
        ...

    def refusal(self, message: str) -> bytes:
        """The body of a refusal."""
        ...

    def nothing(self) -> list[bytes]:
        """What a client has to take without a word: pings, comments, types and fields that it does not know."""
        ...

    def broken(self) -> dict[str, bytes]:
        """What breaks the format."""
        ...


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


@dataclass
class OpenAiDialect:
    """Chat completions: server-sent events without types (platform.openai.com/docs/api-reference/chat/streaming)."""

    name: str = "openai"
    path: str = "/v1/chat/completions"
    request_id_header: str = "x-request-id"
    content_type: str = "text/event-stream"
    model: str = "gpt-4o"

    def provider(
        self, url: str, *, managed: bool = True, stall_s: float = 30.0, models: Mapping[str, ModelTraits] | None = None
    ) -> Provider:
        own = OpenAiCredentials(Secret(MANAGED["openai"][0])) if managed else None
        timeouts = Timeouts(5, stall_s)
        return OpenAiProvider(OpenAiSettings(f"{url}/v1", own, models=models or {}, timeouts=timeouts))

    def event(self, **chunk: Any) -> bytes:
        return b"data: " + _json(chunk) + b"\n\n"

    def delta(self, finish: str | None = None, **delta: Any) -> bytes:
        return self.event(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])

    def begin(self) -> bytes:
        return self.delta(role="assistant", content="")

    def text(self, word: str) -> bytes:
        return self.delta(content=word)

    def reasoning(self, word: str) -> bytes:
        return self.delta(reasoning_content=word)

    def call(self, index: int, id_: str, name: str, *arguments: str) -> list[bytes]:
        head = {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": ""}}
        pieces = [{"index": index, "function": {"arguments": piece}} for piece in arguments]
        return [self.delta(tool_calls=[piece]) for piece in (head, *pieces)]

    def finish(self, reason: str = "stop", **usage: int) -> list[bytes]:
        words = {"stop": "stop", "length": "length", "tools": "tool_calls"}
        last = [self.event(choices=[], usage=usage)] if usage else []
        return [self.delta(words.get(reason, reason)), *last, b"data: [DONE]\n\n"]

    def failure(self, kind: str, message: str) -> bytes:
        types = {
            "overloaded": "server_error",
            "rate": "rate_limit_exceeded",
            "credentials": "invalid_api_key",
            "request": "invalid_request_error",
        }
        return self.event(error={"message": message, "type": types[kind], "code": None})

    def refusal(self, message: str) -> bytes:
        return _json({"error": {"message": message, "type": "some_error", "code": None}})

    def nothing(self) -> list[bytes]:
        return [
            b": comment\n\n",
            b"event: ping\ndata: {}\n\n",
            b"id: 7\nretry: 10\n\n",
            self.event(choices=[{"index": 1, "delta": {"content": "another choice"}}]),
            self.event(choices=None, something={"new": [1]}),
        ]

    def broken(self) -> dict[str, bytes]:
        return {
            "bad JSON": b"data: {nope\n\n",
            "bad UTF-8": b'data: {"choices":[{"delta":{"content":"\xff\xfe"}}]}\n\n',
            "another type": b'data: {"choices":{}}\n\n',
            "JSON too deep": b'data: {"error":' + b"[" * 100_000 + b"\n\n",
        }


@dataclass
class AnthropicDialect:
    """Messages: server-sent events with types (platform.claude.com/docs/en/build-with-claude/streaming)."""

    name: str = "anthropic"
    path: str = "/v1/messages"
    request_id_header: str = "request-id"
    content_type: str = "text/event-stream"
    model: str = "claude-sonnet-4-5"

    def provider(
        self, url: str, *, managed: bool = True, stall_s: float = 30.0, models: Mapping[str, ModelTraits] | None = None
    ) -> Provider:
        own = AnthropicCredentials(Secret(MANAGED["anthropic"][0])) if managed else None
        return AnthropicProvider(AnthropicSettings(url, own, models or {}, Timeouts(5, stall_s)))

    def event(self, type_: str, **data: Any) -> bytes:
        return b"event: " + type_.encode() + b"\ndata: " + _json({"type": type_, **data}) + b"\n\n"

    def delta(self, index: int, type_: str, **delta: Any) -> bytes:
        return self.event("content_block_delta", index=index, delta={"type": type_, **delta})

    def start(self, index: int, type_: str, **block: Any) -> bytes:
        return self.event("content_block_start", index=index, content_block={"type": type_, **block})

    def begin(self) -> bytes:
        message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": {}}
        return self.event("message_start", message=message)

    def text(self, word: str) -> bytes:
        return self.delta(0, "text_delta", text=word)

    def reasoning(self, word: str) -> bytes:
        return self.delta(0, "thinking_delta", thinking=word)

    def call(self, index: int, id_: str, name: str, *arguments: str) -> list[bytes]:
        pieces = [self.delta(index, "input_json_delta", partial_json=piece) for piece in arguments]
        stop = self.event("content_block_stop", index=index)
        return [self.start(index, "tool_use", id=id_, name=name, input={}), *pieces, stop]

    def finish(self, reason: str = "stop", **usage: int) -> list[bytes]:
        words = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use"}
        names = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
        counts = {names[name]: tokens for name, tokens in usage.items()}
        delta = {"stop_reason": words.get(reason, reason), "stop_sequence": None}
        return [self.event("message_delta", delta=delta, usage=counts), self.event("message_stop")]

    def failure(self, kind: str, message: str) -> bytes:
        types = {
            "overloaded": "overloaded_error",
            "rate": "rate_limit_error",
            "credentials": "authentication_error",
            "request": "invalid_request_error",
        }
        return self.event("error", error={"type": types[kind], "message": message}, request_id="req_1")

    def refusal(self, message: str) -> bytes:
        return _json({"type": "error", "error": {"type": "some_error", "message": message}, "request_id": "req_1"})

    def nothing(self) -> list[bytes]:
        return [
            b": comment\n\n",
            self.event("ping"),
            self.event("something_new", index=3, delta={"type": "text_delta", "text": "not for us"}),
            self.delta(0, "something_delta", something="new"),
            self.start(0, "text", text=""),
            self.event("content_block_stop", index=0),
        ]

    def broken(self) -> dict[str, bytes]:
        return {
            "bad JSON": b"event: content_block_delta\ndata: {nope\n\n",
            "bad UTF-8": b'data: {"type":"content_block_delta","delta":{"text":"\xff\xfe"}}\n\n',
            "another type": b'data: {"type":"content_block_delta","index":0,"delta":{"text":7}}\n\n',
            "JSON too deep": b'data: {"type":' + b"[" * 100_000 + b"\n\n",
        }


DIALECTS: dict[str, Dialect] = {
    "openai": OpenAiDialect(),
    "anthropic": AnthropicDialect(),
    "bedrock": BedrockDialect(),
}
