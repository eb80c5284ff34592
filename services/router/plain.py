"""A quick look at completions: most are plain text, and need no rule engine to be seen to be valid.

`is_plain` is stricter than the rules of the contract and knows fewer cases; what it does not vouch for goes to
protovalidate, which takes some 110 us for a request: its rules over lists are interpreted.
"""

from __future__ import annotations

import re
from typing import Final

from flowstack_protos.router.v1 import router_service_pb2 as pb

MESSAGES_MAX: Final = 64
TEXT_CHARACTERS_MAX: Final = 3 * 1024 * 1024 // 4
"""A character has at most four bytes of UTF-8, and a text three MiB."""

_FIELDS: Final = frozenset(
    {"request_id", "provider", "model", "messages", "max_output_tokens", "temperature", "top_p", "byok", "labels"}
)
_ROLES: Final = frozenset(pb.MessageRole.values()) - {pb.MESSAGE_ROLE_UNSPECIFIED}
_provider = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII).fullmatch
_key = re.compile(r"[!-~]{1,512}", re.ASCII).fullmatch


def is_plain(request: pb.CompleteRequest) -> bool:
    """True only for a completion of texts that certainly satisfies every rule of the contract."""
    return (
        all(field.name in _FIELDS for field, _ in request.ListFields())
        and _provider(request.provider) is not None
        and _is_short(request.model, 1, 256)
        and _is_short(request.request_id, 0, 128)
        and 1 <= len(request.messages) <= MESSAGES_MAX
        and all(_is_plain_message(message) for message in request.messages)
        and (not request.HasField("max_output_tokens") or request.max_output_tokens >= 1)
        and (not request.HasField("temperature") or 0 <= request.temperature <= 2)
        and (not request.HasField("top_p") or 0 < request.top_p <= 1)
        and len(request.byok) <= 1
        and all(_is_plain_key(byok) for byok in request.byok)
        and len(request.labels) <= 16
        and all(_is_short(key, 1, 64) and _is_short(request.labels[key], 0, 256) for key in request.labels)
    )


def _is_plain_message(message: pb.Message) -> bool:
    return (
        message.role in _ROLES
        and 1 <= len(message.content) <= MESSAGES_MAX
        and all(part.HasField("text") and len(part.text) <= TEXT_CHARACTERS_MAX for part in message.content)
    )


def _is_plain_key(byok: pb.ByokCredentials) -> bool:
    """An OpenAI or Anthropic key and nothing else."""
    match byok.WhichOneof("credentials"):
        case "openai":
            return _key(byok.openai.api_key) is not None and not (byok.openai.organization or byok.openai.project)
        case "anthropic":
            return _key(byok.anthropic.api_key) is not None
        case _:
            return False


def _is_short(text: str, least: int, most: int) -> bool:
    return least <= len(text) <= most and text.isascii()
