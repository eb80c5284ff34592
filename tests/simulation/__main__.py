"""Replays seeds: `python -m tests.simulation --seed 7`, with the whole trace on standard output."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.run import simulate


def say(text: str) -> None:
    """Writes a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Runs what was asked for; answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Replays simulated worlds.")
    parser.add_argument("--seed", type=int, help="run this one and print its trace")
    parser.add_argument("--seeds", type=int, help="run this many, from 0 on, and print what fails")
    options = parser.parse_args()
    if options.seed is not None:
        report = simulate(options.seed)
        say("\n".join(report.notes))
        say(f"seed {report.seed}, digest {report.digest}, {report.virtual_s:.0f} virtual seconds, {dict(report.seen)}")
        return bool(report.violations)
    failed = 0
    begun_s = time.perf_counter()
    for seed in range(options.seeds or 100):
        report = simulate(seed)
        if report.violations:
            failed += 1
            say(f"{report.replay}: {report.violations[0]}")
    say(f"{failed} of {options.seeds or 100} seeds failed, {time.perf_counter() - begun_s:.1f} s")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
