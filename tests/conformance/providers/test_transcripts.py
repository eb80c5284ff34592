"""Answers as the providers' published formats have them, beside the events that they mean; both written by hand.

Each file of transcripts/ names its source. What Anthropic and Bedrock want back with the results of tools is
`handed_back`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.router.domain.events import Finish, ProviderEvent, ReasoningDelta, TextDelta, ToolCall
from services.router.domain.outcome import Usage
from services.router.domain.request import ToolResultPart
from services.router.domain.tool_loop import Answer, ToolLoop
from services.router.providers.port import Provider
from tests.conformance.providers.calls import Said, asked, body, prompt, say
from tests.support.dialects import Dialect
from tests.support.fault_server import FaultServer
from tests.support.transcripts import FILES, WITH_HANDED_BACK, dialect_of, raw


@pytest.fixture
def dialect(file: Path) -> Dialect:
    return dialect_of(file)


@pytest.fixture
def transcript(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text())


def told(event: ProviderEvent) -> list[Any]:
    match event:
        case TextDelta(text):
            return ["text", text]
        case ReasoningDelta(text):
            return ["reasoning", text]
        case ToolCall(id_, name, arguments):
            return ["tool_call", id_, name, arguments]
        case Finish(reason, word, usage):
            return ["finish", reason.name, word, usage]
    raise AssertionError(event)


def expected(transcript: dict[str, Any]) -> list[list[Any]]:
    return [_with_usage(event) if event[0] == "finish" else event for event in transcript["expected"]]


def _with_usage(event: list[Any]) -> list[Any]:
    counts = event[3]
    names = ("input", "output", "cached", "written", "reasoning")
    return [*event[:3], Usage(*(counts.get(name) for name in names))]


def all_told(said: Said) -> list[list[Any]]:
    events = [told(event) for event in said.events]
    if said.error is not None:
        events.append(["failure", said.error.failure.name, said.error.message])
    return events


@pytest.mark.parametrize("writes", ["one write", "writes of 7 bytes"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_a_transcript(
    provider: Provider, server: FaultServer, transcript: dict[str, Any], file: Path, writes: str
) -> None:
    data = raw(server.dialect, transcript["upstream"])
    size = len(data) if writes == "one write" else 7
    server.script(body(*(data[start : start + size] for start in range(0, len(data), size))))
    said = await say(provider, prompt("x", *transcript.get("tools", ())), asked(server.dialect))

    assert all_told(said) == expected(transcript)
    assert transcript["source"].startswith("https://")


@pytest.mark.parametrize("file", WITH_HANDED_BACK, ids=lambda file: file.stem)
async def test_reasoning_is_handed_back_with_the_results(
    provider: Provider, server: FaultServer, transcript: dict[str, Any], file: Path
) -> None:
    dialect = server.dialect
    question = prompt("x", *transcript["tools"])
    last = b"".join([dialect.begin(), dialect.text("Low."), *dialect.finish()])
    server.script(body(raw(dialect, transcript["upstream"])), body(last))
    said = await say(provider, question, asked(dialect))
    loop, answer = ToolLoop(rounds_max=1), Answer.of(said.finish, said.events)
    for id_ in loop.ask(answer.calls):
        loop.add((ToolResultPart(id_, "low"),))
    assert (await say(provider, loop.next_prompt(question, answer), asked(dialect))).text == "Low."

    _, assistant, results = server.requests[1].json["messages"]
    assert assistant["role"] == "assistant"
    assert assistant["content"] == msgspec.json.decode(transcript["handed_back"])
    assert results["role"] == "user"
    assert len(results["content"]) == 1
