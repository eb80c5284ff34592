"""What one call has to do with another, and with the environment of the process: nothing."""

from __future__ import annotations

import pytest

from services.router.providers.port import Provider
from tests.conformance.providers.calls import answer, ask, asked, prompt, say
from tests.support.fault_server import Exchange, FaultServer

ENVIRONMENT = {
    "openai": ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"),
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE", "ANTHROPIC_IDENTITY_TOKEN"),
    "bedrock": (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_PROFILE",
        "AWS_REGION",
    ),
}


async def test_nothing_of_the_environment_goes_out(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    dialect = server.dialect
    for name in ENVIRONMENT[dialect.name]:
        monkeypatch.setenv(name, f"environment-{name}")
    for name in ("OPENAI", "ANTHROPIC"):
        monkeypatch.setenv(f"{name}_CUSTOM_HEADERS", "X-Planted: environment-header")
        monkeypatch.setenv(f"{name}_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    provider = dialect.provider(server.root, managed=False)
    said = await ask(provider, server, *answer(dialect, "a"))
    await provider.aclose()

    assert said.error is None
    assert "environment" not in str(server.requests[0].headers)
    assert "environment" not in server.requests[0].path


async def test_cookies_are_not_kept_for_the_next_caller(provider: Provider, server: FaultServer) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head(set_cookie="session=planted; Path=/")
        await exchange.send(b"".join(answer(server.dialect, "a")))
        await exchange.end()

    server.script(behave)
    for _ in range(2):
        await say(provider, prompt("x"), asked(server.dialect))

    assert "cookie" not in server.requests[1].headers
