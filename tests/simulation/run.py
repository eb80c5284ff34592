"""Runs seeds: each in a world of its own, with a report that can be compared and replayed."""

from __future__ import annotations

import gc
import logging
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from tests.simulation.oracle import Oracle
from tests.simulation.world import World
from tests.support.simulation_loop import HaltedError, SimulatedLoop

MEMORY = Path("/dev/shm")


@dataclass
class Report:
    """What became of a seed."""

    seed: int
    violations: list[str]
    digest: str
    notes: list[str]
    seen: Counter[str]
    virtual_s: float

    @property
    def replay(self) -> str:
        """The command that runs it again."""
        return f"python -m tests.simulation --seed {self.seed}"


def simulate(seed: int) -> Report:
    """Runs one seed to its end, or to its first defect."""
    with collector_off():
        return _simulate(seed)


def _simulate(seed: int) -> Report:
    draw = random.Random(f"run {seed}")
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None, prefix="simulation-"))
    loop = SimulatedLoop(seed, draw.choice((0.0, 0.1, 0.5, 1.0)))
    world = World(seed, loop, folder)
    loop.set_exception_handler(
        lambda _, context: world.oracle.fail(f"{context['message']}: {context.get('exception')}")
    )
    with defects_are_violations(world.oracle):
        try:
            loop.run_until_complete(world.run())
        except HaltedError:
            pass  # at the first violation
        except Exception as error:  # whatever ends a world early is what is to be found
            world.oracle.fail("".join(traceback.format_exception(error)))
        report = Report(seed, list(world.oracle.violations), loop.digest(), loop.notes, world.oracle.seen, loop.time())
        loop.set_exception_handler(lambda *_: None)  # what killed processes would have done does not matter
        loop.end()
    world.quota.close()
    shutil.rmtree(folder)
    return report


@contextmanager
def collector_off() -> Iterator[None]:
    """Collects garbage between worlds only: what it finalises would be scheduled at a moment that no seed decides."""
    gc.disable()
    try:
        yield
    finally:
        unraisable, sys.unraisablehook = sys.unraisablehook, lambda _: None
        # All that was made meanwhile is in the youngest generation. The world is out of reach by now: what survives
        # this is looked at no more, and thousands of worlds would fill the memory.
        gc.collect(0)
        sys.unraisablehook = unraisable
        gc.enable()


@contextmanager
def defects_are_violations(oracle: Oracle) -> Iterator[None]:
    """Makes a logged defect a violation, tells the oracle of failures that it cannot see, and drops the log."""

    def take(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if event.get("event") == "defect":
            oracle.fail(f"a defect: {event.get('error_type')} {event.get('traceback')}")
        elif event.get("event") == "store_failed":
            oracle.failed()
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[take],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    unraisable, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        structlog.configure(**before)
