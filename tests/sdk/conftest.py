"""What the SDK is tested against: the running services and the fake, behind one face."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flowstack import Agent
from flowstack.testing import FakeFlowStack
from tests.support.fault_server import FaultServer, fault_server
from tests.support.receiver import Receiver
from tests.support.suite import Suite, running_suite
from tests.support.threads import in_thread


class Platform:
    """Makes accounts and agents."""

    endpoint: Any

    def key(self, plan_id: str) -> str:
        raise NotImplementedError

    def agent(self, plan_id: str = "starter", name: str = "tester", **options: Any) -> Agent:
        return Agent(name, self.key(plan_id), endpoint=self.endpoint, **{"provider": "echo"} | options)


class Real(Platform):
    """The running services; a simulator of OpenAI and a receiver of webhooks are on loopback."""

    def __init__(self, suite: Suite, openai: FaultServer, receiver: Receiver, loop: asyncio.AbstractEventLoop) -> None:
        self.suite, self.openai, self.receiver, self.loop = suite, openai, receiver, loop

    @property
    def endpoint(self) -> dict[str, str]:  # type: ignore[override]
        settings = self.suite.settings
        return {"router": settings.router_address, "billing": settings.billing_address, "vault": settings.vault_address}

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def key(self, plan_id: str) -> str:
        return self.run(self.suite.open_account(plan_id))[1]


@asynccontextmanager
async def running_services(folder: Path) -> AsyncIterator[Real]:
    async with fault_server() as openai, Receiver() as receiver:
        settings = {
            "FLOWSTACK_OPENAI_BASE_URL": openai.url,
            "FLOWSTACK_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "FLOWSTACK_WEBHOOK_ALLOW_HTTP": "1",
        }
        async with running_suite(folder, **settings) as suite:
            yield Real(suite, openai, receiver, asyncio.get_running_loop())


class Fake(Platform):
    """The fake."""

    def __init__(self, fake: FakeFlowStack) -> None:
        self.fake = fake
        self.endpoint = fake.endpoint

    def key(self, plan_id: str) -> str:
        return self.fake.new_account(plan_id)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with in_thread(lambda: running_services(tmp_path_factory.mktemp("sdk"))) as real:
        yield real


# One worker runs what needs the services, so that they are started once; see support/schedule.py.
@pytest.fixture(params=["services", "fake"])
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """Either: what a test says of one has to hold of the other."""
    if request.param == "services":
        yield request.getfixturevalue("services")
        return
    with FakeFlowStack() as fake:
        yield Fake(fake)
