"""The providers' SDKs take long to import: the router starts without them, and a first call loads the one it needs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from services.router.domain.outcome import AttemptFailure
from services.router.domain.request import AnthropicCredentials, OpenAiCredentials
from services.router.providers import sdk_call
from services.router.providers.anthropic import AnthropicProvider, AnthropicSettings
from services.router.providers.openai import OpenAiProvider, OpenAiSettings
from services.router.providers.openai_stream import OpenAiWire
from services.router.providers.port import DEFAULT_TIMEOUTS, ProviderError
from services.router.providers.sdk_call import Sdk, SdkMethod
from services.shared.secret import Secret
from tests.support.suite import ROOT


def test_the_router_starts_without_the_sdks() -> None:
    program = "import sys, services.router.__main__; print({'openai', 'anthropic', 'boto3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


class Loader:
    """An SDK that takes as long to load as a test wants, of a server that nobody can reach."""

    def __init__(self, *failures: Exception) -> None:
        self.threads: list[threading.Thread] = []
        self.begun = threading.Event()
        self.goes_on = threading.Event()
        self._failures = list(failures)

    def __call__(self) -> None:
        self.threads.append(threading.current_thread())
        self.begun.set()
        assert self.goes_on.wait(60)
        if self._failures:
            raise self._failures.pop()


def ask() -> Sdk:
    assert asyncio.get_running_loop()
    request = httpx2.Request("POST", "http://127.0.0.1:1/v1")
    return Sdk(request, lambda _, __: ProviderError(AttemptFailure.REQUEST_REJECTED))


@asynccontextmanager
async def method_of(loader: Loader) -> AsyncIterator[SdkMethod]:
    method = SdkMethod(loader, ask, DEFAULT_TIMEOUTS, "x-request-id")
    try:
        yield method
    finally:
        loader.goes_on.set()
        await method.aclose()


async def call(method: SdkMethod) -> AttemptFailure:
    """What a call fails with."""
    with pytest.raises(ProviderError) as failed:
        async with method.call({}, b"{}", OpenAiWire(), (), lambda: None):
            pass
    return failed.value.failure


async def test_the_sdk_is_loaded_once_and_in_a_thread() -> None:
    loader = Loader()
    async with method_of(loader) as method:
        assert loader.threads == []
        calls = [asyncio.create_task(call(method)) for _ in range(3)]
        loader.goes_on.set()
        assert await asyncio.gather(*calls) == [AttemptFailure.UNREACHABLE] * 3
        assert await call(method) is AttemptFailure.UNREACHABLE
    assert len(loader.threads) == 1
    assert loader.threads != [threading.main_thread()]


async def test_a_caller_that_leaves_does_not_take_the_sdk_from_the_others() -> None:
    loader = Loader()
    async with method_of(loader) as method:
        leaves, stays = asyncio.create_task(call(method)), asyncio.create_task(call(method))
        loading = method.prepare()
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        assert not loading.done()
        loader.goes_on.set()
        assert await stays is AttemptFailure.UNREACHABLE


async def test_what_no_call_has_asked_for_is_loaded_soon_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk_call, "WARM_UP_S", 0.0)
    loader = Loader()
    async with method_of(loader) as method:
        await asyncio.to_thread(loader.begun.wait, 60)
        loader.goes_on.set()
        assert await call(method) is AttemptFailure.UNREACHABLE
    assert len(loader.threads) == 1


async def test_what_could_not_be_loaded_is_tried_again_by_the_next_call() -> None:
    loader = Loader(MemoryError())
    loader.goes_on.set()
    async with method_of(loader) as method:
        with pytest.raises(MemoryError):
            await method.prepare()
        assert await call(method) is AttemptFailure.UNREACHABLE
    assert len(loader.threads) == 2


async def test_what_the_operator_has_keys_for_is_loaded_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[SdkMethod] = []

    def prepare(method: SdkMethod) -> None:
        prepared.append(method)

    monkeypatch.setattr(SdkMethod, "prepare", prepare)
    key = Secret("sk-x")
    without = [OpenAiProvider(OpenAiSettings()), AnthropicProvider(AnthropicSettings())]
    assert prepared == []
    managed = [
        OpenAiProvider(OpenAiSettings(managed=OpenAiCredentials(key))),
        AnthropicProvider(AnthropicSettings(managed=AnthropicCredentials(key))),
    ]
    assert len(prepared) == 2
    for provider in (*without, *managed):
        await provider.aclose()
