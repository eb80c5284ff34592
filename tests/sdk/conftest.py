"""The running services, for blocking tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from flowstack import Agent
from tests.support.suite import Suite, running_suite


@dataclass
class Platform:
    """Makes accounts and agents at running services."""

    suite: Suite
    loop: asyncio.AbstractEventLoop

    @property
    def endpoint(self) -> dict[str, str]:
        settings = self.suite.settings
        return {"router": settings.router_address, "billing": settings.billing_address, "vault": settings.vault_address}

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def key(self, plan_id: str) -> str:
        return self.run(self.suite.open_account(plan_id))[1]

    def agent(self, plan_id: str = "starter", name: str = "tester", **options: Any) -> Agent:
        return Agent(name, self.key(plan_id), endpoint=self.endpoint, **options)


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    context = running_suite(tmp_path_factory.mktemp("sdk"))
    platform = Platform(asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(90), loop)
    yield platform
    platform.run(context.__aexit__(None, None, None))
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
