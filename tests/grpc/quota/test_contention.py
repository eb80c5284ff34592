"""200 callers in each of five client processes on one nearly full account."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

from services.quota.domain.cursors import Position
from services.quota.domain.model import partition_of
from services.shared.clock import SystemClock
from tests.support.clock import us
from tests.support.quota import ACCOUNT, commit, done, entitlement, new_session_id, one, quota_server, reserve

ROOT = Path(__file__).parents[3]
PROCESSES = 5
CALLERS = 200
LIMIT = 100
FREE = 25


async def test_exactly_the_free_units_are_granted(tmp_path: Path) -> None:
    clock = SystemClock()
    async with quota_server(tmp_path, clock, maintained=True) as server:
        await server.store.put_entitlement(entitlement(limit=LIMIT, concurrent=10_000, anchor_us=us(2020, 1, 1)))
        for number in range(LIMIT - FREE):
            session_id = new_session_id(clock)
            done(await one(server.store, reserve(session_id)))
            if number % 2:
                done(await one(server.store, commit(session_id)))
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.grpc.quota.caller", server.address, ACCOUNT, str(CALLERS)),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for _ in range(PROCESSES)
        ]
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        written = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
        said = [json.loads(out) for out, _ in written]

        granted = [session_id for report in said for session_id in report["granted"]]
        refused = sum((Counter(report["refused"]) for report in said), Counter())
        assert len(granted) == len(set(granted)) == FREE
        assert refused == {"SESSION_QUOTA_EXCEEDED": PROCESSES * CALLERS - FREE}

        quota = await server.store.quota(ACCOUNT)
        assert quota is not None
        committed = quota.managed_sessions + quota.byok_sessions
        assert committed + quota.sessions_reserved == LIMIT
        for session_id in granted:
            done(await one(server.store, commit(session_id)))
        page = await server.store.read_events(Position(partition_of(ACCOUNT), 0, 0), 1_000)
        assert len(page.events) == committed + FREE
