"""Figures, their bars, and how they are shown and kept."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

PAIRS = 5
"""Interleaved pairs of measurement and reference; the figure is the median of their ratios."""


@dataclass(frozen=True)
class Figure:
    """One measured thing."""

    name: str
    setup: str
    """Callers, processes, store: what a reader needs to compare."""
    value: float
    unit: str
    reference: str = ""
    reference_value: float | None = None
    ratio: float | None = None
    bar: str = ""
    """The bar in words, such as `>= 0.8 x`; empty where a figure is printed only."""
    met: bool | None = None


@dataclass
class Report:
    """All figures of a run."""

    figures: list[Figure] = field(default_factory=list)
    long: bool = False
    """Measure at the full sizes too, which takes many minutes and gigabytes."""

    def add(self, figure: Figure) -> None:
        """Takes a figure and says so, because a whole run takes minutes."""
        self.figures.append(figure)
        beside = f" beside {figure.reference_value:,.1f} ({figure.reference})" if figure.reference_value else ""
        ratio = f", {figure.ratio:.2f} x" if figure.ratio is not None else ""
        print(f"{figure.name}: {figure.value:,.1f} {figure.unit}{beside}{ratio}", flush=True)

    def show(self) -> None:
        """Prints the table."""
        table = Table(title="FlowStack bench", caption="ratios: median of five interleaved pairs in one run")
        for column in ("figure", "set-up", "value", "reference", "ratio", "bar", "met"):
            table.add_column(column, overflow="fold")
        for figure in self.figures:
            reference = "" if figure.reference_value is None else f"{figure.reference_value:,.1f} {figure.reference}"
            table.add_row(
                figure.name,
                figure.setup,
                f"{figure.value:,.1f} {figure.unit}",
                reference,
                "" if figure.ratio is None else f"{figure.ratio:.2f}",
                figure.bar,
                {None: "", True: "yes", False: "NO"}[figure.met],
            )
        Console(width=160).print(table)

    def write(self, path: Path) -> None:
        """Writes the figures as JSON, with what they were measured on."""
        machine = {"cores": os.cpu_count(), "python": platform.python_version(), "time": time.time()}
        path.write_text(json.dumps({"machine": machine, "figures": [asdict(f) for f in self.figures]}, indent=2) + "\n")


def median_of_pairs(pairs: list[tuple[float, float]]) -> tuple[float, float, float]:
    """The median value, the median reference, and the median of the pairs' ratios."""
    values, references = [value for value, _ in pairs], [reference for _, reference in pairs]
    ratios = [value / reference for value, reference in pairs]
    return statistics.median(values), statistics.median(references), statistics.median(ratios)
