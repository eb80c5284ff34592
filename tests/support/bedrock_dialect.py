"""The format that Bedrock answers in, as the fault server speaks it (smithy.io, docs.aws.amazon.com/bedrock).

Written from AWS's published formats, and with nothing of the parsers under test.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.router.domain.request import (
    BedrockCredentials,
)
from services.router.providers.aws import FixedCredentials
from services.router.providers.bedrock import BedrockProvider, BedrockSettings
from services.router.providers.port import Provider, Timeouts
from services.router.providers.traits import ModelTraits
from services.shared.secret import Secret
from tests.support.keys import MANAGED

REGION = "us-east-1"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


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
