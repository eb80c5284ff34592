from __future__ import annotations

import pytest

from services.router.providers.redaction import MESSAGE_CHARACTERS_MAX, READ_CHARACTERS_MAX, filtered, identifier
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
    "ASIAIOSFODNN7EXAMPLE",
    "IQoJb3JpZ2luX2VjEXAMPLE",
    "FwoGZXIvYXdzEBEXAMPLE//x",
    "ABSKQmVkcm9ja0FQSUtleS1leGFtcGxl",
    "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3M",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("around", ["{}", "Incorrect API key: {}.", '{{"key": "{}"}}', "Bearer {}", "x={},y"])
def test_what_looks_like_a_key_is_taken_out(key: str, around: str) -> None:
    assert key not in filtered(around.format(key))


@pytest.mark.parametrize(
    ("message", "without"),
    [
        ("No access for org-AbC123xyz.", "org-AbC"),
        ("User: arn:aws:iam::123456789012:user/bob is not authorized to perform bedrock:X", "123456789012"),
        ("User: arn:aws:sts::123456789012:assumed-role/admin/bob, no access", "assumed-role"),
        ("Role AROAIOSFODNN7EXAMPLE:bob", "AROA"),
        ("No access for organization org-abcd and project proj_a1B2c3d4.", "proj_"),
        ("See https://user:pass@proxy.internal:8443/v1/x?y=z.", "internal"),
        ("See https://user:pass@proxy.internal:8443/v1/x?y=z.", "pass"),
        ("upstream 'http://10.0.0.7:8000/v1' failed", "10.0.0.7"),
        ("redis://:hunter2@cache/0 is down", "hunter2"),
        ("No route to admin:hunter2@vllm-3.internal", "hunter2"),
        ("No route to admin:hunter2@vllm-3.internal", "vllm-3"),
        ("HTTPS://[fd00::7]:8000/v1 failed", "fd00"),
    ],
)
def test_whose_key_it_is_and_where_a_server_stands_is_taken_out(message: str, without: str) -> None:
    assert without in message
    assert without not in filtered(message)


def test_the_words_around_an_address_stay() -> None:
    assert filtered("Look at https://a.example/b, then retry.") == "Look at <address>, then retry."
    assert filtered('{"url": "http://a/b"}') == '{"url": "<address>"}'


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


def test_only_the_beginning_of_a_long_message_is_read_and_no_word_is_cut_in_two() -> None:
    key = "deadbeef" * 5
    for length in range(READ_CHARACTERS_MAX - len(key) - 10, READ_CHARACTERS_MAX):
        assert "dead" not in filtered(f"https://{'a' * (length - 9)} {key} and more")
    assert filtered("eyJ-" * 4_000_000) == "…"
    assert filtered("a:" * 4_000_000) == "…"


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
