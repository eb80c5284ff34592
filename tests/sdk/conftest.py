"""What the SDK is tested against: the running services and the fake, behind one face."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flowstack import Agent
from flowstack.testing import FakeFlowStack
from tests.support.suite import Suite, running_suite


class Platform:
    """Makes accounts and agents."""

    endpoint: Any

    def key(self, plan_id: str) -> str:
        raise NotImplementedError

    def agent(self, plan_id: str = "starter", name: str = "tester", **options: Any) -> Agent:
        return Agent(name, self.key(plan_id), endpoint=self.endpoint, **{"provider": "echo"} | options)


class Real(Platform):
    """The running services."""

    def __init__(self, suite: Suite, loop: asyncio.AbstractEventLoop) -> None:
        self.suite, self.loop = suite, loop

    @property
    def endpoint(self) -> dict[str, str]:  # type: ignore[override]
        settings = self.suite.settings
        return {"router": settings.router_address, "billing": settings.billing_address, "vault": settings.vault_address}

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def key(self, plan_id: str) -> str:
        return self.run(self.suite.open_account(plan_id))[1]


class Fake(Platform):
    """The fake."""

    def __init__(self, fake: FakeFlowStack) -> None:
        self.fake = fake
        self.endpoint = fake.endpoint

    def key(self, plan_id: str) -> str:
        return self.fake.new_account(plan_id)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    context = running_suite(tmp_path_factory.mktemp("sdk"))
    real = Real(asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(90), loop)
    yield real
    real.run(context.__aexit__(None, None, None))
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


# One worker runs what needs the services, so that they are started once.
_PARAMS = [pytest.param("services", marks=pytest.mark.xdist_group("SDK on the services")), "fake"]


@pytest.fixture(params=_PARAMS)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """Either: what a test says of one has to hold of the other."""
    if request.param == "services":
        yield request.getfixturevalue("services")
        return
    with FakeFlowStack() as fake:
        yield Fake(fake)
