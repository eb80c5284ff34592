"""The three formats in which providers answer, as the fault server speaks them, and the clients that are tested.

Written from the providers' published formats, and with nothing of the parsers under test.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flowstack_protos.router.v1 import router_service_pb2 as pb

from services.router.domain.request import (
    AnthropicCredentials,
    BedrockCredentials,
    Candidate,
    CredentialMode,
    Credentials,
    OpenAiCredentials,
)
from services.router.providers.anthropic import AnthropicProvider, AnthropicSettings
from services.router.providers.aws import FixedCredentials
from services.router.providers.bedrock import BedrockProvider, BedrockSettings
from services.router.providers.openai import OpenAiProvider, OpenAiSettings
from services.router.providers.port import Provider, Timeouts
from services.router.providers.traits import ModelTraits
from services.shared.secret import Secret

BYOK = {
    "openai": ("sk-planted-byok-0123456789abcdefghijklmnop",),
    "anthropic": ("sk-ant-api03-planted-byok-0123456789abcdefghijklmnop",),
    # An id, a key and a session token, in the shapes of AWS's.
    "bedrock": (
        "ASIAPLANTEDBYOK01234",
        "planted/byok+0123456789abcdefghijklmnopq",
        "IQoJb3JpZ2luX2VjPlantedByok0123456789/+abcdefghijklmnopqrstuvwxyz==",
    ),
}
MANAGED = {
    "openai": ("sk-planted-managed-0123456789abcdefghijkl",),
    "anthropic": ("sk-ant-api03-planted-managed-0123456789abcdefghijkl",),
    "bedrock": ("AKIAPLANTEDMANAGED01", "planted/managed+0123456789abcdefghijklmno", ""),
}
PLANTED = tuple(key for keys in (*BYOK.values(), *MANAGED.values()) for key in keys if key)

FAILURE_KINDS = ("overloaded", "rate", "credentials", "request")
"""What a provider can report of itself in the middle of a stream, whatever its words."""

REGION = "us-east-1"


def credentials_of(name: str, keys: Sequence[str]) -> Credentials:
    """Credentials for the provider `name`."""
    secrets = [Secret(key) for key in keys]
    if name == "openai":
        return OpenAiCredentials(secrets[0])
    return AnthropicCredentials(secrets[0]) if name == "anthropic" else BedrockCredentials(*secrets)


def byok_of(name: str) -> pb.ByokCredentials:
    """The caller's credentials as a request carries them."""
    keys = BYOK[name]
    if name == "openai":
        return pb.ByokCredentials(openai=pb.OpenAiCredentials(api_key=keys[0]))
    if name == "anthropic":
        return pb.ByokCredentials(anthropic=pb.AnthropicCredentials(api_key=keys[0]))
    id_, key, token = keys
    aws = pb.BedrockCredentials(access_key_id=id_, secret_access_key=key, session_token=token)
    return pb.ByokCredentials(bedrock=aws)


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


def candidate(name: str, model: str, keys: Sequence[str] | None = None) -> Candidate:
    """A candidate on the caller's own credentials."""
    return Candidate(name, model, CredentialMode.BYOK, credentials_of(name, keys or BYOK[name]))


def managed_candidate(name: str, model: str) -> Candidate:
    """A candidate on the operator's."""
    return Candidate(name, model, CredentialMode.MANAGED)


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


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame of AWS's event stream encoding (smithy.io/2.0/aws/amazon-eventstream.html), headers as strings."""
    head = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    body = prelude + head + payload
    return body + struct.pack("!I", zlib.crc32(body))


@dataclass
class BedrockDialect:
    """ConverseStream: AWS's event stream (docs.aws.amazon.com/bedrock/latest/APIReference)."""

    name: str = "bedrock"
    path: str = "/model/{model}/converse-stream"
    request_id_header: str = "x-amzn-RequestId"
    content_type: str = "application/vnd.amazon.eventstream"
    model: str = "anthropic.claude-sonnet-4-5-20250929-v1:0"

    def provider(
        self, url: str, *, managed: bool = True, stall_s: float = 30.0, models: Mapping[str, ModelTraits] | None = None
    ) -> Provider:
        own = FixedCredentials(BedrockCredentials(*map(Secret, MANAGED["bedrock"]))) if managed else None
        return BedrockProvider(BedrockSettings((REGION,), url, own, models or {}, Timeouts(5, stall_s)))

    def event(self, type_: str, **payload: Any) -> bytes:
        headers = {":event-type": type_, ":content-type": "application/json", ":message-type": "event"}
        # Bedrock pads its payloads, so that their lengths tell nothing.
        return frame(headers, _json({**payload, "p": "abcdefgh"}))

    def delta(self, index: int, **delta: Any) -> bytes:
        return self.event("contentBlockDelta", contentBlockIndex=index, delta=delta)

    def begin(self) -> bytes:
        return self.event("messageStart", role="assistant")

    def text(self, word: str) -> bytes:
        return self.delta(0, text=word)

    def reasoning(self, word: str) -> bytes:
        return self.delta(0, reasoningContent={"text": word})

    def call(self, index: int, id_: str, name: str, *arguments: str) -> list[bytes]:
        start = {"toolUse": {"toolUseId": id_, "name": name}}
        pieces = [self.delta(index, toolUse={"input": piece}) for piece in arguments]
        stop = self.event("contentBlockStop", contentBlockIndex=index)
        return [self.event("contentBlockStart", contentBlockIndex=index, start=start), *pieces, stop]

    def finish(self, reason: str = "stop", **usage: int) -> list[bytes]:
        words = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use"}
        names = {"prompt_tokens": "inputTokens", "completion_tokens": "outputTokens"}
        counts = {names[name]: tokens for name, tokens in usage.items()}
        return [
            self.event("messageStop", stopReason=words.get(reason, reason)),
            self.event("metadata", usage=counts, metrics={"latencyMs": 12}),
        ]

    def failure(self, kind: str, message: str) -> bytes:
        types = {
            "overloaded": "modelStreamErrorException",
            "rate": "throttlingException",
            "credentials": "accessDeniedException",
            "request": "validationException",
        }
        headers = {
            ":exception-type": types[kind],
            ":content-type": "application/json",
            ":message-type": "exception",
        }
        return frame(headers, _json({"message": message}))

    def refusal(self, message: str) -> bytes:
        return _json({"message": message})

    def nothing(self) -> list[bytes]:
        return [
            self.event("somethingNew", delta={"text": "not for us"}),
            self.delta(0, something={"new": 1}),
            self.event("contentBlockStart", contentBlockIndex=0, start={}),
            self.event("contentBlockStop", contentBlockIndex=0),
            frame({":message-type": "event", ":event-type": "initial-response"}, b""),
        ]

    def broken(self) -> dict[str, bytes]:
        headers = {":event-type": "contentBlockDelta", ":message-type": "event"}
        good = self.text("x")
        return {
            "bad JSON": frame(headers, b"{nope"),
            "bad UTF-8": frame(headers, b'{"delta":{"text":"\xff\xfe"}}'),
            "another type": frame(headers, b'{"contentBlockIndex":0,"delta":{"text":7}}'),
            "JSON too deep": frame(headers, b'{"delta":' + b"[" * 100_000),
            "bad checksum": good[:-1] + bytes([good[-1] ^ 1]),
            "bad checksum of the prelude": good[:9] + bytes([good[9] ^ 1]) + good[10:],
            "a length of everything": b"\xff" * 12 + good,
            "a frame over the limit": _oversized(),
            "a frame that is too short": frame({}, b"")[:3] + b"\x0f" + frame({}, b"")[4:],
        }


def _oversized() -> bytes:
    prelude = struct.pack("!II", 20 * 1024 * 1024, 0)
    return prelude + struct.pack("!I", zlib.crc32(prelude))


def blob(data: bytes) -> str:
    """Bytes as AWS's JSON holds them."""
    return base64.b64encode(data).decode()


DIALECTS: dict[str, Dialect] = {
    "openai": OpenAiDialect(),
    "anthropic": AnthropicDialect(),
    "bedrock": BedrockDialect(),
}
