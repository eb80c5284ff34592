"""The providers that are offered now, and their exchange while sessions run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from services.router import catalog
from services.router.catalog import Catalog
from services.router.lineup import Lineup
from services.router.service import RouterService
from services.shared.log import get_logger
from services.shared.settings import StartupError


class Reloader:
    """Reads the operator's file again on demand.

    A file that is good holds for the sessions that begin from then on; those that run keep the providers that they
    began with, whose connections are closed when the last of them has ended. A file that is not good changes nothing.

    Args:
        path: The operator's file.
        build: Makes the providers of a catalogue; raises StartupError where a key of theirs is not valid.
        service: Who serves.
    """

    def __init__(self, path: Path, build: Callable[[Catalog], Lineup], service: RouterService) -> None:
        self._path = path
        self._build = build
        self._service = service
        self._leaving: set[asyncio.Task[None]] = set()
        self._log = get_logger()

    def reload(self) -> bool:
        """Reads the file and takes it; answers whether it was good."""
        try:
            # The file is small, and sessions may wait the millisecond.
            lineup = self._build(catalog.load(self._path))
        except StartupError as error:
            self._log.error("providers file refused, the old one holds", path=str(self._path), detail=str(error))
            return False
        old, ended = self._service.lineup, self._service.exchange(lineup)
        task = asyncio.create_task(self._leave(old, ended))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        names = ", ".join(sorted(lineup.providers))
        self._log.info("providers file taken", path=str(self._path), detail=names, count=len(ended))
        return True

    async def aclose(self) -> None:
        """Closes the connections of every provider; to be called once no session runs."""
        if self._leaving:
            await asyncio.wait(self._leaving)
        await self._service.lineup.aclose()

    async def _leave(self, old: Lineup, sessions: set[asyncio.Task[None]]) -> None:
        if sessions:
            await asyncio.wait(sessions)
        await old.aclose()
