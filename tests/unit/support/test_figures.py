"""README's table says what a run recorded, the largest of each kind."""

from __future__ import annotations

from tests.figures import BEGIN, END, replaced, table

LINES = (
    '{"name": "kills", "kills": 11, "lost": 0, "double": 0, "sessions": 90, "planted": ""}',
    '{"name": "kills", "kills": 1000, "lost": 2, "double": 1, "sessions": 90000, "planted": ""}',
    '{"name": "kills", "kills": 2000, "lost": 7, "double": 7, "sessions": 9, "planted": "moves_the_cursor"}',
    '{"name": "planted", "mutant": "a", "seed": 1}',
    '{"name": "planted", "mutant": "b", "seed": 1}',
    "",
)


def test_the_largest_run_without_planted_defects_counts() -> None:
    assert table(LINES).splitlines()[2:] == [
        "| the simulation on planted defects | 2 planted defects, each of them found |",
        "| kill -9 at named places under load | 1,000 kills over 90,000 sessions: 2 lost, 1 counted twice |",
    ]


def test_only_what_stands_between_the_marks_is_exchanged() -> None:
    readme = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(readme, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
