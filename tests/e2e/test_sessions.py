"""Sessions through router, quota and billing."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import grpc
from flowstack_protos.type.v1 import type_pb2

from flowstack import AsyncAgent
from services.router.config import RouterSettings
from services.shared.server import SERVICES
from services.suite.ready import admin_addresses, wait_until_serving
from tests.support.suite import Suite, child_ids, info_of, reason_of

COMMITTED = type_pb2.SESSION_STATE_COMMITTED
EXPIRED = type_pb2.SESSION_STATE_EXPIRED


async def drained_ledger(suite: Suite, account_id: str, secret: str, sessions: int) -> list[tuple[str, int]]:
    """The account's rows (session, state) in the ledger, once `sessions` counted ones have reached it.

    Billing owns its file exclusively, so the rows are read from a copy.
    """
    while (await suite.usage(secret)).sessions_used_today < sessions:
        pass  # each call is answered anew; the test's own time limit ends a ledger that never gets there
    with tempfile.TemporaryDirectory() as folder:
        for name in ("billing.db", "billing.db-wal"):
            Path(folder, name).write_bytes((suite.data / name).read_bytes())
        with closing(sqlite3.connect(Path(folder, "billing.db"))) as copy:
            query = "SELECT session_id, state FROM ledger WHERE account_id = ?"
            return copy.execute(query, (account_id,)).fetchall()


async def test_a_session_is_streamed_counted_and_shown(suite: Suite) -> None:
    account_id, secret = await suite.open_account("starter")
    before = await suite.usage(secret)
    events = [event async for event in suite.complete(secret, text="one two three")]
    after = await suite.usage(secret)

    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "session_started"
    assert kinds[-1] == "session_finished"
    assert set(kinds[1:-1]) == {"text_delta"}
    assert "".join(event.text_delta for event in events) == "one two three"
    finished = events[-1].session_finished
    assert finished.session_state == COMMITTED
    assert finished.finish_reason == type_pb2.FINISH_REASON_STOP
    assert (before.sessions_used, after.sessions_used) == (0, 1)
    assert (after.sessions_limit, after.sessions_remaining) == (1000, 999)
    session = await suite.session(account_id, events[0].session_started.session_id)
    assert session.state == COMMITTED
    assert session.outcome.served_provider == "echo"


async def test_200_completions_at_once_on_an_account_with_25_sessions(suite: Suite) -> None:
    account_id, secret = await suite.open_account("free")

    async def run() -> str:
        try:
            events = [event async for event in suite.complete(secret, labels={"echo.words": "5"})]
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            info = info_of(error)
            assert info.metadata["limit"] == "25"
            assert info.metadata["plan"] == "free"
            assert info.metadata["upgrade_plan"] == "hobbyist"
            assert set(info.metadata) >= {"current_usage", "reset_time"}
            return info.reason
        assert events[-1].session_finished.session_state == COMMITTED
        return "COMMITTED"

    outcomes = await asyncio.gather(*(run() for _ in range(200)))

    assert outcomes.count("COMMITTED") == 25
    assert outcomes.count("SESSION_QUOTA_EXCEEDED") == 175
    quota = await suite.account_quota(account_id)
    assert (quota.sessions_committed, quota.sessions_reserved, quota.sessions_remaining) == (25, 0, 0)
    rows = await drained_ledger(suite, account_id, secret, 25)
    assert len(rows) == 25
    assert len({session_id for session_id, _ in rows}) == 25
    usage = await suite.usage(secret)
    assert (usage.sessions_used, usage.can_make_requests) == (25, False)
    assert usage.refusal_reason == "SESSION_QUOTA_EXCEEDED"


async def test_a_killed_router_charges_nobody(suite: Suite) -> None:
    account_id, secret = await suite.open_account("starter")
    session_ids: list[str] = []
    all_streaming = asyncio.Event()

    async def stream() -> grpc.StatusCode:
        call = suite.complete(secret, labels={"echo.words": "100000", "echo.delay_ms": "20"})
        try:
            async for event in call:
                if event.HasField("session_started"):
                    session_ids.append(event.session_started.session_id)
                elif event.HasField("text_delta") and len(session_ids) == 10:
                    all_streaming.set()
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    streams = asyncio.gather(*(stream() for _ in range(10)))
    await all_streaming.wait()
    os.kill(child_ids(suite.process.pid)["router"], signal.SIGKILL)
    assert set(await streams) == {grpc.StatusCode.UNAVAILABLE}

    call = suite.watch_quota(account_id)
    async for update in call:
        if update.quota.sessions_reserved == 0:
            break
    call.cancel()
    states = [(await suite.session(account_id, session_id)).state for session_id in session_ids]
    assert states == [EXPIRED] * 10
    usage = await suite.usage(secret)
    assert (usage.sessions_used, usage.sessions_remaining) == (0, 1000)
    # The supervisor has put another router in its place.
    assert await wait_until_serving(admin_addresses(suite.settings, SERVICES), 30) == []
    events = [event async for event in suite.complete(secret)]
    assert events[-1].session_finished.session_state == COMMITTED
    rows = await drained_ledger(suite, account_id, secret, 1)
    assert sorted(state for _, state in rows) == [COMMITTED] + [EXPIRED] * 10


async def test_a_plan_without_managed_access_refuses_and_counts_nothing(suite: Suite) -> None:
    account_id, secret = await suite.open_account("free")
    try:
        async for _ in suite.complete(secret, provider="openai", model="gpt-4o-mini"):
            raise AssertionError("nothing may be streamed")
    except grpc.aio.AioRpcError as error:
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "BYOK_REQUIRED")
    else:
        raise AssertionError("the call has to fail")
    quota = await suite.account_quota(account_id)
    assert (quota.sessions_committed, quota.sessions_reserved) == (0, 0)


async def test_a_session_ends_at_the_longest_that_a_request_may_take(suite: Suite) -> None:
    assert RouterSettings.model_fields["session_time_limit_seconds"].default == 300
    _, secret = await suite.open_account("starter")
    settings = suite.settings
    endpoint = {"router": settings.router_address, "billing": settings.billing_address}
    async with AsyncAgent("patient", secret, provider="echo", endpoint=endpoint, record_providers=False) as agent:
        reply = await agent.chat("Hello", labels={"echo.words": "100000", "echo.delay_ms": "100"})
        assert (reply.finish_reason, reply.startswith("Hello")) == ("time_limit", True)
        assert (await agent.get_usage()).sessions_used == 1
