"""Maintenance goes on whatever one round of it meets, because leases and watermarks hang on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from services.quota.adapters.sqlite import SqliteStore
from services.quota.service import QuotaService
from services.quota.store import Committed
from services.shared.errors import FlowStackError, Reason
from tests.support.clock import ManualClock
from tests.support.quota import ACCOUNT, done, entitlement, new_session_id, one, reserve, sqlite_store


class FailingOnce:
    """A store whose first sweep fails."""

    def __init__(self, store: SqliteStore, error: Exception) -> None:
        self._store = store
        self._error: Exception | None = error
        self.swept = asyncio.Event()

    def on_committed(self, listener: Callable[[Committed], None]) -> None:
        self._store.on_committed(listener)

    async def sweep(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        await self._store.sweep()
        self.swept.set()

    async def prune(self, partition: int) -> bool:
        return await self._store.prune(partition)


@pytest.mark.parametrize(
    "error", [FlowStackError(Reason.QUOTA_UNAVAILABLE, "The disk is full."), KeyError("a defect"), OSError("a disk")]
)
async def test_a_failed_round_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("services.quota.service.SWEEP_SECONDS", 0)
    clock = ManualClock()
    async with sqlite_store(tmp_path / "quota.db", clock, hold_us=0) as store:
        await store.put_entitlement(entitlement())
        session = done(await one(store, reserve(new_session_id(clock)))).session
        clock.advance(3600)
        failing = FailingOnce(store, error)
        maintenance = asyncio.create_task(QuotaService(failing).maintain())  # type: ignore[arg-type]
        swept = asyncio.create_task(failing.swept.wait())
        await asyncio.wait([maintenance, swept], return_when=asyncio.FIRST_COMPLETED)
        assert not maintenance.done()
        found = await store.session(ACCOUNT, session.session_id)
        assert found is not None
        assert found.state.name == "EXPIRED"
        maintenance.cancel()
        await asyncio.gather(maintenance, return_exceptions=True)
