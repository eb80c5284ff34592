"""The router's throughput, beside the LiteLLM proxy, a bare gRPC relay and the upstream itself."""

from __future__ import annotations

import pstats
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.litellm import KEY, litellm_proxy
from bench.processes import FOLDER, ROOT, allow_many_files, cpu_s
from bench.report import PAIRS, Figure, Report, median_of_pairs
from bench.router_stack import STORE, UPSTREAM, Stack, Upstream, channel_of_its_own, relay, stack, upstream
from bench.streams import Caller, HttpCaller, RelayCaller, RouterCaller, Run, http_session

CALLERS = 16
MODEL = "words-100"
LENGTHS = {100: 40, 1_000: 8}
"""By the chunks of a stream: how many streams each caller makes in a round. What a session costs once, the reservation
and the commit above all, weighs in short streams; LiteLLM's chunks cost the same in both, and are measured in MODEL."""
LITELLM_STREAMS_EACH = 2
PROFILED_STREAMS_EACH = 20
PROFILE_LINES = 25

SETUP = f"{CALLERS} callers in 1 process, streams of {{chunks}} chunks, 1 router worker, {STORE}; {UPSTREAM}"


@dataclass(frozen=True)
class Ways:
    """Every way to the same upstream, and who does the work in each."""

    target: Upstream
    services: Stack
    router: Caller
    relay: Caller
    relay_process_id: int
    litellm: Caller
    direct: Caller


@asynccontextmanager
async def ways(folder: Path) -> AsyncIterator[Ways]:
    """Runs everything that is compared; LiteLLM is installed first where it is missing."""
    allow_many_files()
    async with AsyncExitStack() as opened:
        enter = opened.enter_async_context
        target = await enter(upstream())
        _, litellm_url = await enter(litellm_proxy(folder / "litellm", target.url))
        services = await enter(stack(target, folder / "data"))
        bare = await enter(relay(target, folder / "none"))
        session = await enter(http_session())
        channel = await enter(channel_of_its_own(services.address))
        yield Ways(
            target,
            services,
            RouterCaller(channel, services.metadata),
            RelayCaller(bare.channel.channel),
            bare.process_id,
            HttpCaller(session, litellm_url, KEY),
            HttpCaller(session, f"{target.url}/chat/completions"),
        )


async def run(report: Report) -> None:
    """Measures, and shows where the router's time goes."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=FOLDER) as folder:
        async with ways(Path(folder)) as found:
            await _throughput(report, found)
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=FOLDER) as folder:
        await _profile(Path(folder))


async def _throughput(report: Report, found: Ways) -> None:
    for caller in (found.direct, found.relay, found.router, found.litellm):
        await caller.run(MODEL, CALLERS, 1)  # warm
    for chunks, streams_each in LENGTHS.items():
        await _length(report, found, chunks, streams_each)


async def _length(report: Report, found: Ways, chunks: int, streams_each: int) -> None:
    """Measures with streams of so many chunks."""
    model = f"words-{chunks}"
    pairs: dict[str, list[tuple[Run, Run]]] = {"litellm": [], "relay": [], "direct": []}
    router_cpu_s = relay_cpu_s = behind_cpu_s = 0.0
    for _ in range(PAIRS):
        began_s = cpu_s(found.relay_process_id)
        bare = await found.relay.run(model, CALLERS, streams_each)
        relay_cpu_s += cpu_s(found.relay_process_id) - began_s
        began_s, behind_began_s = found.services.router.cpu_s(), _behind_cpu_s(found.services)
        routed = await found.router.run(model, CALLERS, streams_each)
        router_cpu_s += found.services.router.cpu_s() - began_s
        behind_cpu_s += _behind_cpu_s(found.services) - behind_began_s
        pairs["relay"].append((routed, bare))
        pairs["direct"].append((routed, await found.direct.run(model, CALLERS, streams_each)))
        if model == MODEL:
            pairs["litellm"].append((routed, await found.litellm.run(model, CALLERS, LITELLM_STREAMS_EACH)))
    setup = SETUP.format(chunks=chunks)
    _add(report, setup, pairs["litellm"], "the LiteLLM proxy, 1 worker", 20)
    _add(report, setup, pairs["relay"], "a bare gRPC relay", 0.7)
    _add(report, setup, pairs["direct"], "the upstream called directly", None)
    count = PAIRS * CALLERS * streams_each
    report.add(
        Figure(
            "processor time of a stream",
            setup,
            router_cpu_s / count * 1e3,
            "ms in the router",
            "ms in the bare gRPC relay",
            relay_cpu_s / count * 1e3,
            router_cpu_s / relay_cpu_s,
        )
    )
    report.add(
        Figure(
            "processor time of a stream behind the router",
            setup,
            behind_cpu_s / count * 1e3,
            "ms in quota and billing, on the same cores",
            "ms in the router",
            router_cpu_s / count * 1e3,
            behind_cpu_s / router_cpu_s,
        )
    )


def _behind_cpu_s(services: Stack) -> float:
    return services.quota.cpu_s() + services.billing.cpu_s()


def _add(report: Report, setup: str, pairs: list[tuple[Run, Run]], reference: str, bar: float | None) -> None:
    if not pairs:
        return
    value, other, ratio = median_of_pairs([(a.chunks_per_second, b.chunks_per_second) for a, b in pairs])
    report.add(
        Figure(
            "chunks through the router",
            setup,
            value,
            "chunks/s",
            f"chunks/s of {reference}",
            other,
            ratio,
            "" if bar is None else f">= {bar:g} x",
            None if bar is None else ratio >= bar,
        )
    )
    value, other, ratio = median_of_pairs([(a.streams_per_second, b.streams_per_second) for a, b in pairs])
    report.add(
        Figure("streams through the router", setup, value, "streams/s", f"streams/s of {reference}", other, ratio)
    )


async def _profile(folder: Path) -> None:
    """Runs a router under cProfile, and prints the functions that took most of its time."""
    profile = folder / "router.profile"
    async with upstream() as target, stack(target, folder / "data", profile=profile) as services:
        async with channel_of_its_own(services.address) as channel:
            await RouterCaller(channel, services.metadata).run(MODEL, CALLERS, PROFILED_STREAMS_EACH)
        services.router.terminate()
    print(f"CPU profile of the router, {SETUP.format(chunks=100)}:")
    pstats.Stats(str(profile)).sort_stats("tottime").print_stats(PROFILE_LINES)
