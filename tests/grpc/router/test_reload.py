"""The operator's file, read again while sessions run."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import Process
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.router.catalog import Catalog
from services.router.lineup import Lineup
from services.router.providers.echo import EchoProvider
from services.router.reload import Reloader
from services.shared.errors import FlowStackError, Reason
from tests.grpc.router.harness import METADATA, RouterUnderTest, drained, echo_request, finished, read_into, text_of
from tests.grpc.router.process import router as router_process

ECHO = """
[providers.echo]
kind = "echo"
[providers.echo.models."echo-1"]
aliases = ["parrot"]
"""
NEW = ECHO.replace("parrot", "lyrebird")


class ClosingProvider(EchoProvider):
    """Tells when it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = asyncio.Event()

    async def aclose(self) -> None:
        self.closed.set()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "providers.toml"
    path.write_text(ECHO)
    return path


def reloader_of(router: RouterUnderTest, file: Path, made: list[ClosingProvider]) -> Reloader:
    def build(entries: Catalog) -> Lineup:
        made.append(ClosingProvider())
        return Lineup(entries, dict.fromkeys(entries.providers, made[-1]), frozenset())

    return Reloader(file, build, router.service)


async def events_of(router: RouterUnderTest, model: str) -> Any:
    request = echo_request("one two")
    request.model = model
    return await router.events(request)


async def test_a_good_file_holds_for_new_sessions_and_running_ones_keep_theirs(
    router: RouterUnderTest, file: Path
) -> None:
    made: list[ClosingProvider] = []
    reloader = reloader_of(router, file, made)
    started_with = router.service.lineup
    call = router.complete(echo_request("a b", **{"echo.delay_ms": "5"}))
    await router.sleeps.begun.acquire()

    assert reloader.reload()
    assert text_of(await events_of(router, "parrot")) == "one two"
    file.write_text(NEW)
    assert reloader.reload()
    assert text_of(await events_of(router, "lyrebird")) == "one two"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await events_of(router, "parrot")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    # A session of the first providers still runs, and holds back nobody's end but theirs.
    assert not made[0].closed.is_set()
    router.sleeps.pass_(2)
    assert text_of(await read_into([], call)) == "a b"
    async with asyncio.timeout(20):
        await made[0].closed.wait()
    assert not made[1].closed.is_set()
    await reloader.aclose()
    assert made[1].closed.is_set()
    router.service.exchange(started_with)


@pytest.mark.parametrize("content", ["[providers", "[providers.echo]\nkind = 'parrot'\n", None])
async def test_a_bad_file_changes_nothing(router: RouterUnderTest, file: Path, content: str | None) -> None:
    made: list[ClosingProvider] = []
    reloader = reloader_of(router, file, made)
    before = router.service.lineup
    if content is None:
        file.unlink()
    else:
        file.write_text(content)

    assert not reloader.reload()
    assert router.service.lineup is before
    assert made == []
    assert text_of(await events_of(router, "echo-1")) == "one two"


async def until(process: Process, event: str) -> dict[str, Any]:
    assert process.stderr is not None
    while line := await process.stderr.readline():
        said: dict[str, Any] = json.loads(line)
        if said["event"].startswith(event):
            return said
    raise AssertionError("the router ended")


async def test_a_hangup_reads_the_file_and_refuses_one_with_its_line(settings: dict[str, str], file: Path) -> None:
    async def answer(stub: Any, model: str) -> FlowStackError | None:
        request = echo_request("hi")
        request.model = model
        call = stub.Complete(request, metadata=METADATA)
        try:
            finished(await read_into([], call))
        except grpc.aio.AioRpcError:
            return (await drained(stub.Complete(request, metadata=METADATA)))[1]
        return None

    async with router_process({**settings, "FLOWSTACK_PROVIDERS_FILE": str(file)}) as (process, stub):
        assert await answer(stub, "parrot") is None
        file.write_text(NEW)
        process.send_signal(signal.SIGHUP)
        await until(process, "providers file taken")
        assert await answer(stub, "lyrebird") is None
        missing = await answer(stub, "parrot")
        file.write_text(NEW + "kind = 7\n")
        process.send_signal(signal.SIGHUP)
        refused = await until(process, "providers file refused")
        assert await answer(stub, "lyrebird") is None
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    assert missing is not None
    assert missing.reason is Reason.MODEL_NOT_FOUND
    assert "line 6" in refused["detail"]
    assert refused["level"] == "error"
