"""What goes out is what the official SDK sends, but for what is listed here."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from tests.conformance.providers.calls import asked, body, prompt, say
from tests.support.dialects import DIALECTS, Dialect
from tests.support.fault_server import FaultServer, Request
from tests.support.keys import BYOK

DIFFERENCES = {
    "accept": "text/event-stream",
    "accept-encoding": "identity",
    # The SDK's own limit on a read. A silent provider is the stall guard's affair.
    "x-stainless-read-timeout": None,
}
"""What every provider sends in place of the SDK's value; None where it sends nothing."""

ANTHROPICS_KEY = {"authorization": None, "x-api-key": BYOK["anthropic"][0]}
"""The SDK sends a key as a bearer token. Servers that speak the format know the header that Anthropic documents."""


async def sdk_call(dialect: Dialect, server: FaultServer) -> None:
    """The SDK's own streamed call."""
    request: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    sdk: openai.AsyncOpenAI | anthropic.AsyncAnthropic
    if dialect.name == "openai":
        sdk = openai.AsyncOpenAI(api_key=BYOK["openai"][0], base_url=server.url)
        stream = await sdk.chat.completions.create(**request)
    else:
        sdk = anthropic.AsyncAnthropic(api_key=BYOK["anthropic"][0], base_url=server.root)
        stream = await sdk.messages.create(**request, max_tokens=9)
    await stream.close()
    await sdk.close()


def seen(request: Request) -> tuple[str, str, dict[str, str]]:
    """Method, path and headers, but for the length of the body."""
    return request.method, request.path, {n: v for n, v in request.headers.items() if n != "content-length"}


@pytest.mark.parametrize("dialect", [DIALECTS["openai"], DIALECTS["anthropic"]], ids=["openai", "anthropic"])
async def test_the_request_is_the_sdks_own(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    dialect = server.dialect
    server.script(body(dialect.begin(), dialect.text("a"), *dialect.finish()))
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    await sdk_call(dialect, server)
    provider = dialect.provider(server.root)
    said = await say(provider, prompt("x"), asked(dialect))
    await provider.aclose()

    assert said.error is None
    method, path, headers = seen(server.requests[0])
    changed: dict[str, str | None] = {**DIFFERENCES, **(ANTHROPICS_KEY if dialect.name == "anthropic" else {})}
    expected = {name: value for name, value in {**headers, **changed}.items() if value is not None}
    assert seen(server.requests[1]) == (method, path, expected)
