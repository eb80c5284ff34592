"""What users get wrong at the command line, and the sentence that each gets for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.terminal import Terminal, addresses, customer_of
from tests.support.suite import Suite

BINARY = bytes(range(256))


@pytest_asyncio.fixture(loop_scope="session")
async def me(suite: Suite) -> Terminal:
    return (await customer_of(suite, "starter"))[1]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("chat", "hi", "--provider", "ecko"), 4, "echo"),
        (("chat", "hi", "--provider", "echo", "--model", "echo-2"), 4, "echo-1"),
        (("subscription", "change", "platinum"), 4, "no such plan"),
        (("invoices", "show", "INV-1-1"), 4, "invoices list"),
        (("keys", "create", "x", "--expires", "tomorrow"), 2, "tomorrow"),
        (("budget", "set", "much"), 2, "much"),
        (("vault", "query", "c", "--filter", "{"), 2, "filter_json"),
        (("usage", "--chart", "/no/where.svg"), 2, "/no/where.svg"),
        (("vault", "store", "c", "{}", "--key", "k", "--if-version", "99999999999999999999"), 2, "--if-version"),
        (("vault", "store", "c", "{}", "--ttl-seconds", "99999999999999999999"), 2, "--ttl-seconds"),
        (("chat", "hi", "--max-output-tokens", "99999999999"), 2, "--max-output-tokens"),
        (("budget", "set", "1e30"), 2, "1,000,000,000 dollars"),
        (("budget", "set", "1e999999"), 2, "1,000,000,000 dollars"),
        (("budget", "set", "0.0000001"), 2, "millionth of a dollar"),
        (("budget", "set", "NaN"), 2, "no amount"),
        (("alerts", "thresholds", "99999999999"), 2, "percent"),
        (("alerts", "webhooks", "rotate", "wh_1", "--overlap-hours", "1e300"), 2, "--overlap-hours"),
        (("keys", "rotate", "key_1", "--overlap-hours", "1e300"), 2, "--overlap-hours"),
        (("keys", "rotate", "key_1", "--overlap-hours", "nan"), 2, "--overlap-hours"),
        (("keys", "create", "x", "--expires", "9999-12-31T23:59:59-23:00"), 2, "9999"),
        (("keys", "create", ""), 2, "name is empty"),
        (("keys", "revoke", "key_1"), 4, "`flowstack keys list` shows"),
        (("keys", "revoke", "nope"), 2, "has to be a key's id, key_…"),
        (("alerts", "redeliver", "nope"), 2, "has to be an alert's id, alert_…"),
        (("alerts", "send-to", "wh_0"), 4, "`flowstack alerts webhooks list` shows"),
        (("alerts", "webhooks", "add", "ftp://x"), 2, "has to be an address that begins with https://"),
        (("subscription", "change", "Nope"), 2, "`flowstack plans` lists them"),
        (("invoices", "show", "nope"), 2, "`flowstack invoices list` shows them"),
        (("chat", "hi", "--model", "gpt-4o"), 2, "name it with --provider"),
        (("--account", "", "usage"), 2, "--account is empty"),
        (("--account", "acct_x", "chat", "hi"), 2, "--account"),
        (("--api-key", "", "usage"), 2, "--api-key is empty"),
        (("--endpoint", "http://[::1", "usage"), 2, "endpoint has to be https://host"),
        (("--endpoint", "http://[::1", "chat", "hi"), 2, "endpoint has to be https://host"),
        (("vault", "store", "c", '{"a": "\udcff"}'), 2, "Argument"),
        (("\udcff",), 2, "Argument"),
        (("chat", "hi", "--provider", "openai", "--byok-file", "/dev/zero"), 2, "too large"),
        (("chat", "hi", "--provider", "openai", "--byok-file", "/no/where"), 2, "/no/where"),
        (("nonsense",), 2, "nonsense"),
        (("chat",), 2, "prompt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_a_mistake_gets_a_sentence(me: Terminal, arguments: tuple[str, ...], code: int, text: str) -> None:
    ended = await me.run(*arguments)
    assert ended.code == code, ended.err
    assert text in ended.err
    assert "Traceback" not in ended.err
    assert "regex" not in ended.err
    as_json = await me.run("--json", *arguments)
    assert text in as_json.error["message"]


async def test_a_malformed_key_is_not_repeated(suite: Suite) -> None:
    ended = await Terminal(addresses(suite) | {"FLOWSTACK_API_KEY": "sk-not ours"}).run("usage")
    assert ended.code == 2
    assert "malformed" in ended.err
    assert "sk-not" not in ended.err


@pytest.mark.parametrize("arguments", [("chat", "-"), ("vault", "store", "c", "-")], ids=" ".join)
async def test_standard_input_has_to_be_text(me: Terminal, arguments: tuple[str, ...]) -> None:
    ended = await me.run(*arguments, stdin=b"\xff\xfe")
    assert ended.code == 2
    assert "Standard input is no text in UTF-8" in ended.err
    assert (await me.json("usage"))["usage"]["sessions_used"] == 0


async def test_bytes_in_an_argument_are_told(me: Terminal) -> None:
    ended = await me.process("chat", b"\xff\xfe", "--json")
    assert ended.code == 2
    assert ended.error["message"].startswith("Argument 2 is no text in UTF-8")


async def test_secrets_have_to_be_text(suite: Suite, me: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "binary"
    file.write_bytes(BINARY)
    key = await me.run("chat", "hi", "--provider", "openai", "--byok-file", str(file))
    assert (key.code, "--byok-file" in key.err) == (2, True)
    for variables in (
        {"FLOWSTACK_ADMIN_TOKEN_FILE": str(file)},
        {"FLOWSTACK_ADMIN_TOKEN_FILE": str(tmp_path)},
        {"FLOWSTACK_ADMIN_TOKEN": "\u00fcn\u00ef"},
        {"FLOWSTACK_ADMIN_TOKEN": "two\nlines"},
    ):
        ended = await Terminal(addresses(suite) | variables).run("admin", "accounts", "list")
        assert ended.code == 2, ended.err
        assert next(iter(variables)) in ended.err
    wrong = await Terminal(addresses(suite) | {"FLOWSTACK_ADMIN_TOKEN": "wrong"}).run("admin", "accounts", "list")
    assert wrong.code == 3


async def test_who_has_no_key_hears_where_the_first_one_comes_from(suite: Suite) -> None:
    for arguments in (("usage",), ("chat", "hi"), ("keys", "create", "x")):
        ended = await Terminal(addresses(suite) | {"FLOWSTACK_API_KEY": ""}).run(*arguments)
        assert ended.code == 2
        assert "`make run` prints one" in ended.err
        assert "admin accounts create" in ended.err
