"""The SDK: a chat beside a bare stub's call of the same request, and how long `import flowstack` takes.

Both call the fake, a server in Python: what of their time is the SDK's shows more than beside a network.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import grpc
from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.router.v1 import router_service_pb2_grpc

from bench.report import PAIRS, Figure, Report, median_of_pairs
from flowstack import Agent

CALLS = 150
IMPORTS = 9
OVERHEAD_BAR = 1.15
IMPORT_BAR_MS = 250
TEXT = "one two three four five six seven eight"

SERVER = """
from flowstack.testing import FakeFlowStack
with FakeFlowStack("professional") as fake:
    print(fake.endpoint, fake.api_key, flush=True)
    input()
"""
IMPORT = "import time; start = time.perf_counter(); import flowstack; print((time.perf_counter() - start) * 1000)"


async def run(report: Report) -> None:
    """Measures a chat, with its note in the vault as by default and without, and the import."""
    await asyncio.to_thread(_chat, report, record_providers=True)
    await asyncio.to_thread(_chat, report, record_providers=False)
    await asyncio.to_thread(_import, report)


def _chat(report: Report, *, record_providers: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=-1, stdout=-1, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        endpoint, key = server.stdout.readline().split()
        with (
            grpc.insecure_channel(endpoint) as channel,
            Agent(
                "bench", key, provider="echo", model="echo-1", endpoint=endpoint, record_providers=record_providers
            ) as agent,
        ):
            stub = router_service_pb2_grpc.RouterServiceStub(channel)
            metadata = (("authorization", f"Bearer {key}"),)
            message = pb.Message(role=pb.MESSAGE_ROLE_USER, content=[pb.ContentPart(text=TEXT)])
            request = pb.CompleteRequest(provider="echo", model="echo-1", messages=[message])

            def bare() -> None:
                for _ in stub.Complete(request, metadata=metadata, timeout=310):
                    pass

            def chat() -> None:
                agent.chat(TEXT)

            for warm in (bare, chat):
                _p50_ms(warm, 20)
            pairs = [(_p50_ms(chat, CALLS), _p50_ms(bare, CALLS)) for _ in range(PAIRS)]
        server.stdin.write("\n")
        server.stdin.flush()
        server.wait(10)
    value, reference, ratio = median_of_pairs(pairs)
    report.add(
        Figure(
            name="SDK: p50 of a chat" + ("" if record_providers else ", without notes"),
            setup="one caller, the Python fake in a process of its own, 8 deltas",
            value=value,
            unit="ms",
            reference="a bare stub's call",
            reference_value=reference,
            ratio=ratio,
            bar=f"<= {OVERHEAD_BAR} x",
            met=ratio <= OVERHEAD_BAR,
        )
    )


def _p50_ms(call: Callable[[], None], count: int) -> float:
    took = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took)


def _import(report: Report) -> None:
    took = [float(subprocess.check_output([sys.executable, "-c", IMPORT])) for _ in range(IMPORTS)]
    value = statistics.median(took)
    report.add(
        Figure(
            name="SDK: import flowstack",
            setup=f"median of {IMPORTS} new processes",
            value=value,
            unit="ms",
            bar=f"<= {IMPORT_BAR_MS} ms",
            met=value <= IMPORT_BAR_MS,
        )
    )
