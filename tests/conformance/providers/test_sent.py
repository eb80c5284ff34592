"""When a provider is said to have been asked: not while there are no credentials yet, and no connection."""

from __future__ import annotations

import asyncio

import pytest

from services.router.domain.events import Finish
from services.router.domain.request import BedrockCredentials, Message, Prompt, Role, TextPart
from services.router.providers.bedrock import BedrockProvider, BedrockSettings
from services.router.providers.echo import EchoProvider
from services.router.providers.port import Provider, ProviderError
from tests.conformance.providers.calls import asked, prompt
from tests.support.bedrock_dialect import REGION
from tests.support.dialects import Dialect
from tests.support.fault_server import Exchange, FaultServer
from tests.support.keys import candidate, managed_candidate
from tests.support.silent_server import silent_server


class Told:
    """Counts how often it was told."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


class LateCredentials:
    """Credentials that never come."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def get(self) -> BedrockCredentials:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()


async def entered(provider: Provider, dialect: Dialect, told: Told) -> None:
    async with provider.open(asked(dialect), prompt("x"), told):
        raise AssertionError("there was an answer")


async def test_not_while_the_connection_is_made(dialect: Dialect) -> None:
    told = Told()
    async with silent_server() as silent:
        provider = dialect.provider(silent.root)
        task = asyncio.create_task(entered(provider, dialect, told))
        await silent.connected()
        await cancelled(task)
        await provider.aclose()

    assert told.times == 0


async def test_not_while_credentials_are_found() -> None:
    told, late = Told(), LateCredentials()
    provider = BedrockProvider(BedrockSettings(regions=(REGION,), managed=late))

    async def call() -> None:
        async with provider.open(managed_candidate("bedrock", "m"), prompt("x"), told):
            raise AssertionError("there was an answer")

    task = asyncio.create_task(call())
    await late.asked.wait()
    await cancelled(task)
    await provider.aclose()

    assert told.times == 0


async def test_not_where_nobody_listens(dialect: Dialect) -> None:
    told = Told()
    provider = dialect.provider("http://127.0.0.1:1")
    with pytest.raises(ProviderError, match="unreachable"):
        await entered(provider, dialect, told)
    await provider.aclose()

    assert told.times == 0


async def test_once_the_request_is_out(provider: Provider, server: FaultServer) -> None:
    told = Told()
    server.script(Exchange.hold)
    task = asyncio.create_task(entered(provider, server.dialect, told))
    exchange = await server.arrived()
    assert told.times == 1
    await cancelled(task)
    await asyncio.wait_for(exchange.client_closed.wait(), 20)


@pytest.mark.parametrize("fail_after", ["", "0"], ids=["answers", "fails"])
async def test_the_simulator_is_asked_at_once(fail_after: str) -> None:
    told = Told()
    labels = {"echo.fail_after": fail_after} if fail_after else {}
    asked_for = Prompt(messages=(Message(Role.USER, (TextPart("one"),)),), labels=labels)
    events = []
    try:
        async with EchoProvider().open(candidate("openai", "echo-1"), asked_for, told) as stream:
            assert told.times == 1
            while not (events and isinstance(events[-1], Finish)):
                events += await stream.read()
    except ProviderError:
        assert fail_after

    assert told.times == 1
    assert bool(events) is not bool(fail_after)
