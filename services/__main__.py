"""Starts all services on this machine: `python -m services`.

--demo   then open a demo account and stream one session, and serve until interrupted
--once   with --demo: exit after the demonstration
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import uvloop

from services.shared import log
from services.shared.process import EXIT_STARTUP_FAILED
from services.shared.server import SERVICES
from services.shared.settings import CommonSettings, StartupError, is_loopback, load
from services.suite.demo import DemoFailedError, run_demo
from services.suite.ports import assert_ports_are_free
from services.suite.ready import admin_addresses, wait_until_serving
from services.suite.supervisor import Supervisor

READY_SECONDS = 60.0


async def main(options: argparse.Namespace) -> int:
    """Runs the services; answers the exit code."""
    settings = load(CommonSettings)
    log.configure("suite", settings.log_level)
    assert_ports_are_free(settings)
    _make_secrets(settings)
    stopping, hurried = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurried if stopping.is_set() else stopping).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    supervisor = Supervisor(os.environ, settings.data_folder() / "logs" if options.demo else None)
    await supervisor.start()
    try:
        return await _first(
            _run(settings, options),
            _until(stopping),
            _until_failed(supervisor, settings, options),
        )
    finally:
        stopping.set()
        hurry = asyncio.create_task(_hurry(hurried, supervisor))
        await supervisor.stop()
        hurry.cancel()


async def _run(settings: CommonSettings, options: argparse.Namespace) -> int:
    late = await wait_until_serving(admin_addresses(settings, SERVICES), READY_SECONDS)
    if late:
        print(f"Not serving after {READY_SECONDS:.0f} s: {', '.join(late)}. Look at their output.", file=sys.stderr)
        return 1
    if options.demo:
        try:
            await run_demo(settings)
        except DemoFailedError as error:
            print(f"The demonstration failed. {error}", file=sys.stderr)
            return 1
        if options.once:
            return 0
        print(f"Serving; logs are in {settings.data_dir / 'logs'}. Ctrl-C stops all services.", flush=True)
    await asyncio.Event().wait()
    raise AssertionError("waits for ever")


async def _until(event: asyncio.Event) -> int:
    await event.wait()
    return 0


async def _until_failed(supervisor: Supervisor, settings: CommonSettings, options: argparse.Namespace) -> int:
    name = await supervisor.failed()
    if options.demo:
        # The service's own words went to its log: repeat the last of them.
        lines = (settings.data_dir / "logs" / f"{name}.log").read_text().splitlines()
        print(lines[-1] if lines else f"{name} cannot start.", file=sys.stderr)
    print(f"{name} cannot start, so nothing was left running.", file=sys.stderr)
    return EXIT_STARTUP_FAILED


async def _hurry(hurried: asyncio.Event, supervisor: Supervisor) -> None:
    await hurried.wait()
    supervisor.hurry()


async def _first(*runs: Coroutine[Any, Any, int]) -> int:
    tasks = [asyncio.create_task(run) for run in runs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _make_secrets(settings: CommonSettings) -> None:
    """Makes the secrets that all services share, before any of them needs one."""
    if all(is_loopback(a) for a in (settings.quota_address, settings.billing_address)):
        settings.admin_tokens()
        settings.internal_tokens()
        settings.pepper()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m services", description="Starts all services on this machine.")
    parser.add_argument("--demo", action="store_true", help="open a demo account and stream one session")
    parser.add_argument("--once", action="store_true", help="with --demo: exit afterwards")
    os.umask(0o077)
    try:
        raise SystemExit(uvloop.run(main(parser.parse_args())))
    except StartupError as problem:
        print(problem, file=sys.stderr)
        raise SystemExit(EXIT_STARTUP_FAILED) from None
