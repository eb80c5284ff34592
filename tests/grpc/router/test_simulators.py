"""The whole router in front of the third-party simulators, over each provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from flowstack_protos.router.v1 import router_service_pb2 as pb

from services.shared.errors import Reason
from tests.grpc.router.harness import (
    RouterUnderTest,
    finished,
    read_into,
    request_to,
    running_router,
    text_of,
)
from tests.support.aimock import aimock
from tests.support.dialects import DIALECTS, Dialect
from tests.support.fake_quota import FakeQuota
from tests.support.fault_server import FaultServer
from tests.support.ministack import ministack

FAITHFUL = ("openai", "anthropic")
"""Those whose simulator reports failures. MiniStack answers with a text of its own where its upstream fails."""


@pytest.fixture(scope="module")
def aimock_url() -> Iterator[str]:
    with aimock() as url:
        yield url


@pytest.fixture(scope="module")
def ministack_url(aimock_url: str) -> Iterator[str]:
    with ministack(aimock_url.removesuffix("/v1")) as url:
        yield url


@pytest.fixture(params=list(DIALECTS))
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


@pytest.fixture
async def router(quota: FakeQuota, dialect: Dialect, request: pytest.FixtureRequest) -> AsyncIterator[RouterUnderTest]:
    url = request.getfixturevalue("ministack_url" if dialect.name == "bedrock" else "aimock_url")
    async with running_router(quota, FaultServer(dialect, url=url)) as running:
        yield running


async def test_streamed_text(router: RouterUnderTest) -> None:
    events = await router.events(request_to(router.upstream.dialect, "stream"))

    assert text_of(events) == "Hello from the simulator, in several pieces: ü€😀."
    assert finished(events).usage.output_tokens > 0
    assert router.quota.states() == ["COMMITTED"]


async def test_parallel_tools_in_a_chat(router: RouterUnderTest) -> None:
    call = router.chat()
    request = request_to(
        router.upstream.dialect, "parallel tools", tools=[pb.Tool(name="weather"), pb.Tool(name="time")]
    )
    await call.write(pb.ChatRequest(start=request))
    while (event := await call.read()).WhichOneof("event") != "tool_results_wanted":
        pass
    answers = [pb.ToolResultPart(tool_call_id=id_, content="fine") for id_ in event.tool_results_wanted.tool_call_ids]
    assert len(answers) == 2
    await call.write(pb.ChatRequest(tool_results=pb.ToolResults(results=answers)))
    rest = await read_into([], call)

    assert text_of(rest) == "Sunny at noon."
    assert router.quota.states() == ["COMMITTED"]


@pytest.mark.parametrize("dialect", [DIALECTS[name] for name in FAITHFUL], ids=FAITHFUL)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("limited", Reason.PROVIDER_RATE_LIMITED),
        ("overloaded", Reason.PROVIDER_UNAVAILABLE),
        ("cut", Reason.PROVIDER_UNAVAILABLE),
        ("key refused", Reason.PROVIDER_REJECTED_REQUEST),
    ],
)
async def test_failures_are_free(router: RouterUnderTest, text: str, reason: Reason) -> None:
    _, error = await router.failure(request_to(router.upstream.dialect, text))

    assert error.reason is reason
    assert error.metadata["counted"] == "false"
    assert router.quota.states() == ["RELEASED"]
    if text == "limited":
        assert error.retry_after is not None
        assert error.retry_after.total_seconds() == 7
