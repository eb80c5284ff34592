"""Measures everything, or the parts that are named: `python -m bench [quota] [billing]`."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from bench import billing, providers, quota, router, router_latency, router_memory, vault
from bench.report import Report

PARTS: dict[str, Callable[[Report], Awaitable[None]]] = {
    "quota": quota.run,
    "router": router.run,
    "router-latency": router_latency.run,
    "router-memory": router_memory.run,
    "providers": providers.run,
    "billing": billing.run,
    "vault": vault.run,
}


async def main(names: list[str], output: Path, *, long: bool) -> bool:
    """Runs the parts; answers whether every bar was met."""
    report = Report(long=long)
    for name in names:
        await PARTS[name](report)
    report.show()
    report.write(output)
    print(f"Written to {output}.")
    return all(figure.met is not False for figure in report.figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures, each figure beside its reference.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"what to measure: {', '.join(PARTS)}; all where none")
    parser.add_argument("--output", type=Path, default=Path("bench-results.json"), help="where the JSON goes")
    parser.add_argument("--long", action="store_true", help="measure at the full sizes, which takes many minutes")
    options = parser.parse_args()
    if set(options.parts) - set(PARTS):
        parser.error(f"a part is one of: {', '.join(PARTS)}")
    raise SystemExit(0 if uvloop.run(main(options.parts or list(PARTS), options.output, long=options.long)) else 1)
