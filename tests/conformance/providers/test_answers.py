"""What every provider makes of an answer that keeps to its format, however it is cut up."""

from __future__ import annotations

import pytest

from services.router.domain.events import ReasoningDelta
from services.router.domain.outcome import AttemptFailure, FinishReason
from services.router.providers.port import Provider
from services.router.providers.tool_calls import ARGUMENTS_BYTES_MAX
from tests.conformance.providers.calls import SSE, answer, ask, failed
from tests.support.dialects import DIALECTS
from tests.support.fault_server import FaultServer

WRITES = ["an event a write", "one write", "byte by byte"]


def cut_up(raw: list[bytes], writes: str) -> list[bytes]:
    if writes == "one write":
        return [b"".join(raw)]
    return [bytes([byte]) for byte in b"".join(raw)] if writes == "byte by byte" else raw


@pytest.mark.parametrize("writes", WRITES)
async def test_text_however_it_is_cut_up(provider: Provider, server: FaultServer, writes: str) -> None:
    said = await ask(provider, server, *cut_up(answer(server.dialect, "a", "ü€😀", "b"), writes))

    assert said.error is None
    assert said.text == "aü€😀b"
    assert said.finish.reason is FinishReason.STOP
    assert (said.finish.usage.input_tokens, said.finish.usage.output_tokens) == (7, 2)
    assert said.request_id == "req_fault"


async def test_what_is_new_or_says_nothing_is_passed_over(provider: Provider, server: FaultServer) -> None:
    dialect = server.dialect
    begin, first, second, *end = answer(dialect, "a", "b")
    silence = dialect.nothing()
    said = await ask(provider, server, *silence, begin, *silence, first, *silence, second, *silence, *end)

    assert said.error is None
    assert said.text == "ab"


@pytest.mark.parametrize("dialect", [DIALECTS[name] for name in SSE], ids=SSE)
@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
async def test_other_line_ends(provider: Provider, server: FaultServer, line_end: bytes) -> None:
    raw = [piece.replace(b"\n", line_end) for piece in answer(server.dialect, "a", "b")]
    said = await ask(provider, server, *raw)

    assert said.error is None
    assert said.text == "ab"


async def test_reasoning_comes_apart_from_the_text(provider: Provider, server: FaultServer) -> None:
    dialect = server.dialect
    begin, text, *end = answer(dialect, "b")
    said = await ask(provider, server, begin, dialect.reasoning("so "), dialect.reasoning("that"), text, *end)

    assert (said.reasoning, said.text) == ("so that", "b")
    assert isinstance(said.events[0], ReasoningDelta)


@pytest.mark.parametrize("writes", WRITES)
async def test_parallel_tool_calls_are_put_together(provider: Provider, server: FaultServer, writes: str) -> None:
    dialect = server.dialect
    first = dialect.call(0, "call_a", "look", '{"at":', ' "sky"}')
    second = dialect.call(1, "call_b", "feel", "", '{"w": 12345678901234567890123}')
    third = dialect.call(2, "call_c", "wait")
    raw = [dialect.begin(), *first, *second, *third, *dialect.finish("tools")]
    said = await ask(provider, server, *cut_up(raw, writes), tools=("look", "feel", "wait"))

    assert [(call.id, call.name, call.arguments_json) for call in said.calls] == [
        ("call_a", "look", '{"at": "sky"}'),
        ("call_b", "feel", '{"w": 12345678901234567890123}'),
        ("call_c", "wait", "{}"),
    ]
    assert said.finish.reason is FinishReason.TOOL_CALLS


BAD_CALLS = {
    "no object": ('["sky"]',),
    "cut": ('{"at": "s',),
    "two": ("{}", "{}"),
    "too long": ('{"at": "' + "x" * 700_000, "x" * (ARGUMENTS_BYTES_MAX - 700_000) + '"}'),
}


@pytest.mark.parametrize("arguments", BAD_CALLS.values(), ids=BAD_CALLS.keys())
async def test_arguments_that_are_no_whole_object(
    provider: Provider, server: FaultServer, arguments: tuple[str, ...]
) -> None:
    dialect = server.dialect
    raw = [dialect.begin(), *dialect.call(0, "call_a", "look", *arguments), *dialect.finish("tools")]
    said = await ask(provider, server, *raw, tools=("look",))

    assert failed(said) is AttemptFailure.MALFORMED
    assert said.calls == []
    assert said.error is not None
    assert said.error.request_id == "req_fault"


async def test_two_calls_of_one_id_are_refused(provider: Provider, server: FaultServer) -> None:
    dialect = server.dialect
    calls = [*dialect.call(0, "call_a", "look", "{}"), *dialect.call(1, "call_a", "feel", "{}")]
    said = await ask(provider, server, dialect.begin(), *calls, *dialect.finish("tools"), tools=("look", "feel"))

    assert failed(said) is AttemptFailure.MALFORMED
    assert said.calls == []


async def test_a_call_that_the_token_limit_cut_is_left_out(provider: Provider, server: FaultServer) -> None:
    dialect = server.dialect
    calls = [*dialect.call(0, "call_a", "look", "{}"), *dialect.call(1, "call_b", "look", '{"at')]
    said = await ask(provider, server, dialect.begin(), *calls, *dialect.finish("length"), tools=("look",))

    assert [call.id for call in said.calls] == ["call_a"]
    assert said.finish.reason is FinishReason.MAX_OUTPUT_TOKENS
