from __future__ import annotations

import pytest

from services.router.providers.redaction import MESSAGE_CHARACTERS_MAX, filtered, identifier
from services.shared.secret import Secret

KEYS = [
    "sk-proj-abcDEF0123456789",
    "sk-abc***************xyz9",
    "sk-ant-api03-abcdefghij",
    "fs_key_0123456789",
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-DEF_123",
    "0123456789abcdef0123456789abcdef",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("around", ["{}", "Incorrect API key: {}.", '{{"key": "{}"}}', "Bearer {}", "x={},y"])
def test_what_looks_like_a_key_is_taken_out(key: str, around: str) -> None:
    assert key not in filtered(around.format(key))


def test_a_known_key_is_taken_out_whatever_it_looks_like() -> None:
    assert filtered("the key is 'short'.", (Secret("short"),)) == "the key is '<secret>'."


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens.",
        "Unknown parameter: 'messages[0].content[1].image_url'.",
        "The model `gpt-4o-mini-2024-07-18` does not exist.",
    ],
)
def test_plain_words_stay(message: str) -> None:
    assert filtered(message) == message


def test_it_is_one_short_line() -> None:
    assert filtered("a\r\n\x00b") == "a b"
    assert len(filtered("word " * 1000)) == MESSAGE_CHARACTERS_MAX
    assert filtered("") == ""


@pytest.mark.parametrize(
    "id_", ["req_0123456789abcdef0123456789abcdef", "req_fault", "a:b.c-d_e", "tool_calls", "x" * 64]
)
def test_an_identifier_stays(id_: str) -> None:
    assert identifier(id_, 64) == id_


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 65,
        "two words",
        "line\n",
        "e\u0301",
        "sk-abc***xyz",
        "the-short-key",
        "req_sk-proj-abcDEF0123456789",
        "stop_sk_abcDEF0123456789",
        "fs_key_0123456789",
        "AKIAIOSFODNN7EXAMPLE",
        "req-AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-DEF",
        "org-abcdef123456",
    ],
)
def test_what_is_no_identifier_or_holds_a_key_is_left_out(text: str) -> None:
    assert identifier(text, 64, (Secret("short"), Secret(""))) == ""
