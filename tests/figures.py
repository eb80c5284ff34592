"""Writes README's table of reliability figures from what a run recorded: `python -m tests.figures FILE`.

FILE has one JSON object a line (tests/support/figures.py). Of several records of one kind the largest run counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

README: Final = Path(__file__).resolve().parent.parent / "README.md"
BEGIN: Final = "<!-- figures: written by make test-long -->"
END: Final = "<!-- end of figures -->"

Record = dict[str, Any]


def _simulation(records: list[Record]) -> str:
    run = max(records, key=lambda record: record["seeds"])
    return (
        f"{run['seeds']:,} seeds, {run['admissions']:,} admissions, {run['virtual_s'] / 86_400:,.1f} days of virtual "
        f"time: {run['violations']} violations"
    )


def _planted(records: list[Record]) -> str:
    return f"{len({record['mutant'] for record in records})} planted defects, each of them found"


def _kills(records: list[Record]) -> str:
    run = max((record for record in records if not record["planted"]), key=lambda record: record["kills"])
    return (
        f"{run['kills']:,} kills over {run['sessions']:,} sessions: {run['lost']} lost, {run['double']} counted twice"
    )


def _state_machine(records: list[Record]) -> str:
    run = max(records, key=lambda record: record["examples"] * record["steps"])
    return f"{run['examples']:,} histories of up to {run['steps']} steps on each store: no difference from the model"


def _linearizability(records: list[Record]) -> str:
    run = max(records, key=lambda record: record["calls"])
    return (
        f"{run['histories']} histories of {run['calls']:,} calls, {run['unanswered']:,} of them without an answer: "
        "all linearizable"
    )


def _cancellation(records: list[Record]) -> str:
    steps = {(record["rpc"], record["steps"]): record["steps"] for record in records}
    calls = {record["rpc"] for record in records}
    leaks = sum(record["leaks"] for record in records)
    return f"{len(calls)} calls cancelled at each of {sum(steps.values()):,} steps: {leaks} leaks"


ROWS: Final[tuple[tuple[str, str, Callable[[list[Record]], str]], ...]] = (
    ("simulation", "deterministic simulation", _simulation),
    ("planted", "the simulation on planted defects", _planted),
    ("kills", "kill -9 at named places under load", _kills),
    ("state machine", "any history against a model", _state_machine),
    ("linearizability", "recorded histories with cuts and crashes", _linearizability),
    ("cancellation", "cancellation at every step of the loop", _cancellation),
)


def table(lines: Iterable[str]) -> str:
    """The table in Markdown; a kind that was not run has no row."""
    records = [json.loads(line) for line in lines if line.strip()]
    rows = ["| test | figures of the last long run |", "|---|---|"]
    for name, title, text_of in ROWS:
        found = [record for record in records if record["name"] == name]
        if found:
            rows.append(f"| {title} | {text_of(found)} |")
    return "\n".join(rows)


def replaced(readme: str, new_table: str) -> str:
    """`readme` with the table between its marks exchanged."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{new_table}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(replaced(README.read_text(), table(Path(sys.argv[1]).read_text().splitlines())))
