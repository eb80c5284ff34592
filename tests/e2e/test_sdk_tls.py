"""The SDK and the command line over services with certificates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from flowstack import Agent, AsyncAgent, UntrustedServerError
from tests.e2e.terminal import Terminal, addresses
from tests.grpc.shared.certificates import Authority
from tests.support.suite import running_suite

SETTING = "FLOWSTACK_TLS_SERVER_CA_FILE"


@dataclass
class Place:
    """Where the services are, and whom to trust."""

    variables: dict[str, str]
    authority: Path
    secret: str

    def terminal(self, **variables: str) -> Terminal:
        """The customer's shell."""
        return Terminal(self.variables | {"FLOWSTACK_API_KEY": self.secret} | variables)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    authority = Authority(tmp_path_factory.mktemp("certificates"), "ours")
    made = authority.issue("flowstack", "DNS:localhost", "IP:127.0.0.1")
    settings = {
        "FLOWSTACK_TLS_CERT_FILE": str(made.certificate),
        "FLOWSTACK_TLS_KEY_FILE": str(made.key),
        "FLOWSTACK_TLS_CLIENT_CA_FILE": str(authority.file),
    }
    async with running_suite(tmp_path_factory.mktemp("suite"), **settings) as suite:
        variables = {name: f"https://{address}" for name, address in addresses(suite).items()}
        token = {"FLOWSTACK_ADMIN_TOKEN_FILE": str(suite.data / "admin-token"), SETTING: str(authority.file)}
        operator = Terminal(variables | token)
        opened = await operator.json(
            "admin", "accounts", "create", "Tess", "tess@tls.example", "--plan=starter", "--key"
        )
        yield Place(variables, authority.file, opened["secret"])


def agents_of(place: Place, monkeypatch: pytest.MonkeyPatch, authority: Path | None) -> tuple[Agent, AsyncAgent]:
    for name, address in place.variables.items():
        monkeypatch.setenv(name, address)
    if authority is None:
        monkeypatch.delenv(SETTING, raising=False)
    else:
        monkeypatch.setenv(SETTING, str(authority))
    options: dict[str, Any] = {"provider": "echo", "record_providers": False}
    return Agent("t", place.secret, **options), AsyncAgent("t", place.secret, **options)


async def test_everything_works_with_the_authority_that_is_set(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, other = agents_of(place, monkeypatch, place.authority)
    with agent:
        assert agent.chat("Hello over TLS") == "Hello over TLS"
        agent.vault.store("c", {"a": 1}, key="k")
        assert agent.vault.retrieve("c", "k") == {"a": 1}
        assert agent.get_usage().sessions_used == 1

        @agent.tool
        def shout(message: str) -> str:
            return message.upper()

        assert agent.chat("Shout", labels={"echo.tool": "shout"}) == "Shout"
    async with other:
        assert await other.chat("Hello again") == "Hello again"
        assert await other.vault.retrieve("c", "k") == {"a": 1}
        assert (await other.get_usage()).sessions_used == 3


@pytest.mark.parametrize("trusted", ["the public ones", "another"])
async def test_services_that_nobody_vouches_for_are_named_and_not_called(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trusted: str
) -> None:
    authority = None if trusted == "the public ones" else Authority(tmp_path, "theirs").file
    agent, other = agents_of(place, monkeypatch, authority)
    calls = {
        "router": (lambda: agent.chat("Hello"), lambda: other.chat("Hello")),
        "billing": (agent.get_usage, other.get_usage),
        "vault": (lambda: agent.vault.retrieve("c", "k"), lambda: other.vault.retrieve("c", "k")),
    }
    for service, (blocking, awaited) in calls.items():
        address = place.variables[f"FLOWSTACK_{service.upper()}_ENDPOINT"]
        with pytest.raises(UntrustedServerError) as caught:
            blocking()
        with pytest.raises(UntrustedServerError) as again:
            await awaited()
        assert str(caught.value) == str(again.value)
        assert str(caught.value) == (
            f"FlowStack's {service} service at {address} was not called: its certificate is signed by nobody who is "
            f"trusted here. Set {SETTING} to the file with its authority's certificate, if that is to be trusted. "
            "Nothing was sent to it."
        )
    agent.close()
    await other.close()


async def test_the_command_line_says_the_same(place: Place) -> None:
    well = await place.terminal(**{SETTING: str(place.authority)}).run("doctor")
    assert well.code == 0, well.out
    refused = await place.terminal().run("usage")
    assert refused.code == 7
    assert f"Set {SETTING} to the file" in refused.err
    ill = await place.terminal().run("--json", "doctor")
    found = {check["name"].split()[0]: check for check in ill.json["checks"]}
    for service in ("router", "billing", "vault"):
        assert not found[service]["ok"]
        assert "was not called: its certificate" in found[service]["found"]
    plain = await place.terminal(
        **{name: address.removeprefix("https://") for name, address in place.variables.items()}
    ).run("usage")
    assert plain.code == 7
