"""What the fake's model says: what the test has scripted, else an echo of the last user message. Pure.

Labels of a request steer the echo: echo.words (how many words to send), echo.delay_ms (before each delta), echo.tool (a
tool to call first), echo.fail_after (fail like a provider after that many deltas; 0 before any).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2 as types

from flowstack.testing._errors import invalid_field

WORDS_MAX: Final = 100_000
DELAY_MS_MAX: Final = 300_000


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A tool that the model calls."""

    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the model, to one call of it."""

    text: str = ""
    tools: tuple[ToolRequest, ...] = ()
    failure: types.AttemptFailure.ValueType = types.ATTEMPT_FAILURE_UNSPECIFIED
    """How it fails; unspecified where it does not."""
    fail_after: int = 0
    """After how many deltas."""
    message: str = ""
    """What the provider says of its failure."""
    delay_s: float = 0.0
    """Before each delta."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of an answer."""

    reason: types.FinishReason.ValueType
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing for so many seconds."""

    seconds: float


class ProviderFailureError(Exception):
    """The provider failed."""

    def __init__(self, failure: types.AttemptFailure.ValueType, message: str) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message


Step: TypeAlias = "str | pb.ToolCall | Pause | Finish"


def check_labels(request: pb.CompleteRequest) -> None:
    """Refuses labels that steer the echo nowhere.

    Raises:
        FakeError: INVALID_REQUEST.
    """
    _echo_of(request)
    tool = request.labels.get("echo.tool", "")
    if tool and tool not in {one.name for one in request.tools}:
        raise invalid_field("labels", "echo.tool has to be the name of one of the request's tools")


def answer(
    request: pb.CompleteRequest, messages: list[pb.Message], scripted: Reply | None, limit: int
) -> Iterator[Step]:
    """The steps of one answer, in order.

    Args:
        request: what the session was begun with.
        messages: the conversation by now.
        scripted: what the test wants said; None for an echo.
        limit: the most words, of which each counts as a token; 0 for no limit.

    Raises:
        ProviderFailureError: while it is read.
    """
    reply = scripted or _echo_of(request)
    rounds = sum(message.role == pb.MESSAGE_ROLE_TOOL for message in messages)
    if scripted is None and request.labels.get("echo.tool") and messages[-1].role != pb.MESSAGE_ROLE_TOOL:
        message = json.dumps({"message": " ".join(_said(messages))}, separators=(",", ":"), ensure_ascii=False)
        steps: Iterator[str | pb.ToolCall] = iter(
            [pb.ToolCall(id=f"call_echo_{rounds + 1}", name=request.labels["echo.tool"], arguments_json=message)]
        )
        count = 0
    elif scripted is None:
        said = _said(messages)
        asked = request.labels.get("echo.words")
        count = (len(said) if asked is None else int(asked)) if said else 0
        steps = _spaced(itertools.islice(itertools.cycle(said), count))
    else:
        words = reply.text.split(" ") if reply.text else []
        count = len(words)
        calls = (
            pb.ToolCall(id=f"call_{rounds + 1}_{place}", name=tool.name, arguments_json=tool.arguments_json)
            for place, tool in enumerate(reply.tools, start=1)
        )
        steps = itertools.chain(_spaced(words), calls)
    return _paced(steps, reply, count, limit, sum(len(_words(message)) for message in messages))


def _paced(
    steps: Iterator[str | pb.ToolCall], reply: Reply, words: int, limit: int, input_tokens: int
) -> Iterator[Step]:
    sent = text_sent = 0
    fails = reply.failure != types.ATTEMPT_FAILURE_UNSPECIFIED
    reason = types.FINISH_REASON_STOP
    for step in steps:
        if fails and sent == reply.fail_after:
            raise ProviderFailureError(reply.failure, reply.message)
        if isinstance(step, str) and limit and text_sent == limit < words:
            reason = types.FINISH_REASON_MAX_OUTPUT_TOKENS
            break
        if reply.delay_s:
            yield Pause(reply.delay_s)
        yield step
        sent += 1
        text_sent += isinstance(step, str)
        if isinstance(step, pb.ToolCall):
            reason = types.FINISH_REASON_TOOL_CALLS
    if fails and sent == reply.fail_after:
        raise ProviderFailureError(reply.failure, reply.message)
    # One word is one token, so that figures in tests can be checked by eye.
    yield Finish(reason, input_tokens, sent)


def _spaced(words: Iterator[str] | list[str]) -> Iterator[str]:
    for position, word in enumerate(words):
        yield word if position == 0 else f" {word}"


def _said(messages: list[pb.Message]) -> list[str]:
    return next((_words(m) for m in reversed(messages) if m.role == pb.MESSAGE_ROLE_USER), [])


def _words(message: pb.Message) -> list[str]:
    return [word for part in message.content if part.WhichOneof("part") == "text" for word in part.text.split()]


def _echo_of(request: pb.CompleteRequest) -> Reply:
    _number(request, "echo.words", WORDS_MAX)
    delay_ms = _number(request, "echo.delay_ms", DELAY_MS_MAX) or 0
    fail_after = _number(request, "echo.fail_after", WORDS_MAX)
    if fail_after is None:
        return Reply(delay_s=delay_ms / 1000)
    return Reply(
        failure=types.ATTEMPT_FAILURE_PROVIDER_ERROR,
        fail_after=fail_after,
        message="echo.fail_after asked for a failure.",
        delay_s=delay_ms / 1000,
    )


def _number(request: pb.CompleteRequest, label: str, maximum: int) -> int | None:
    if label not in request.labels:
        return None
    text = request.labels[label]
    if not (text.isascii() and text.isdigit() and int(text) <= maximum):
        raise invalid_field("labels", f"{label} has to be a whole number of at most {maximum}")
    return int(text)
