from __future__ import annotations

import pytest

from services.shared.toml_lines import line_of

FILE = """# providers
[providers.local]
kind = "openai"

aliases = [
    "a",
    "b",
]
[providers.local.models."gpt-4.1"]
context_tokens = 0
extra = { nested = 1, other.key = 2 }
text = '''
[providers.not_a_table]
'''

[providers.local2]
kind = 7
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("providers", 2),
        ("providers.local", 2),
        ("providers.local.kind has to be a text", 3),
        ("providers.local.aliases", 5),
        ("providers.local.models.gpt-4.1.context_tokens has to be over 0", 10),
        ("providers.local.models.gpt-4.1: a name", 9),
        ("providers.local.models.gpt-4.1.extra.other.key", 11),
        ("providers.local.models.gpt-4.1.text", 12),
        ("providers.local2.kind", 17),
        ("providers.local.base_url, which is missing", 2),
        ("providers.local23 is not there", 2),
        ("providers.not_a_table", 2),
        ("elsewhere", None),
        ("", None),
    ],
)
def test_the_line_of_a_statement(place: str, line: int | None) -> None:
    assert line_of(FILE, place) == line
