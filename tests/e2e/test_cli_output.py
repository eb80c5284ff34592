"""What `flowstack` writes: JSON wherever it is asked for, and tables that lose nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytest_asyncio
from flowstack_protos.billing.v1 import alert_service_pb2 as alerts
from google.protobuf.timestamp_pb2 import Timestamp

from tests.e2e.terminal import Terminal, customer_of, operator_of
from tests.support.suite import Suite
from tests.support.told import telling

ECHO = ("--provider", "echo", "--model", "echo-1")


@pytest_asyncio.fixture(loop_scope="session")
async def me(suite: Suite) -> Terminal:
    return (await customer_of(suite, "starter"))[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("usage", "--json"),
        ("plans", "--json"),
        ("chat", "hi", *ECHO, "--json"),
        ("keys", "--json", "list"),
        ("alerts", "webhooks", "list", "--json"),
        ("--json", "--version"),
        ("--version", "--json"),
    ],
    ids=" ".join,
)
async def test_json_may_be_asked_for_anywhere(me: Terminal, arguments: tuple[str, ...]) -> None:
    ended = await me.run(*arguments)
    assert ended.code == 0, ended.err
    assert isinstance(ended.json, dict)


async def test_after_two_dashes_json_is_a_text_like_any_other(me: Terminal) -> None:
    ended = await me.run("chat", *ECHO, "--", "--json")
    assert (ended.code, ended.out) == (0, "--json\n")


async def test_a_mistake_is_told_as_json_wherever_that_stands(me: Terminal) -> None:
    assert "--nope" in (await me.run("usage", "--json", "--nope")).error["message"]


@pytest.mark.parametrize("columns", [None, 80, 30])
async def test_ids_and_prices_are_never_shortened(suite: Suite, me: Terminal, columns: int | None) -> None:
    operator = operator_of(suite)
    await me.run("alerts", "send", "a message that is long enough to be wrapped on a narrow terminal")
    (key,) = (await me.json("keys", "list"))["api_keys"]
    (alert,) = (await me.json("alerts", "list"))["alerts"]
    (invoice,) = (await me.json("invoices", "list"))["invoices"]
    accounts = (await operator.json("admin", "accounts", "list"))["accounts"]
    for arguments, whole in (
        (("keys", "list"), [key["api_key_id"]]),
        (("alerts", "list"), [alert["alert_id"]]),
        (("invoices", "list"), [invoice["number"], "$50.00"]),
        (("plans",), ["professional", "volume-10k (offer)", "$200.00", "10,000"]),
    ):
        ended = await me.run(*arguments, columns=columns)
        assert ended.code == 0, ended.err
        assert [text for text in whole if text not in ended.out] == []
    listed = await operator.run("admin", "accounts", "list", columns=columns)
    assert [one["account_id"] for one in accounts if one["account_id"] not in listed.out] == []


async def test_a_pipe_gets_a_row_on_one_line(me: Terminal) -> None:
    message = "word " * 60 + "end"
    await me.run("alerts", "send", message)
    (line,) = [line for line in (await me.run("alerts", "list")).out.splitlines() if "alert_" in line]
    assert message in line


async def test_a_sign_of_life_is_no_alert() -> None:
    alert = alerts.Alert(alert_id="alert_1", message="at 75 %", create_time=Timestamp(seconds=1_800_000_000))
    answers = [alerts.WatchAlertsResponse(), alerts.WatchAlertsResponse(alert=alert), alerts.WatchAlertsResponse()]
    with telling({"/flowstack.billing.v1.AlertService/WatchAlerts": answers}) as address:
        watcher = Terminal({"FLOWSTACK_BILLING_ENDPOINT": address, "FLOWSTACK_API_KEY": "fs_of_the_tests"})
        told = await watcher.run("alerts", "watch")
        as_json = await watcher.run("alerts", "watch", "--json")
    assert told.out == "2027-01-15 08:00 UTC    at 75 %\n"
    assert [json.loads(line)["alert_id"] for line in as_json.out.splitlines()] == ["alert_1"]


async def test_what_the_terminals_encoding_lacks_is_escaped(me: Terminal) -> None:
    said = await me.process("chat", "größe 😀", *ECHO, PYTHONIOENCODING="ascii")
    assert (said.code, said.out) == (0, "gr\\xf6\\xdfe \\U0001f600\n")
    as_json = await me.process("chat", "größe 😀", *ECHO, "--json", PYTHONIOENCODING="ascii")
    assert as_json.json["text"] == "größe 😀"
    without_locale = await me.process("chat", "größe", *ECHO, "--json", LC_ALL="C", PYTHONUTF8="0")
    assert without_locale.json["text"] == "größe"


async def test_a_reader_may_leave(me: Terminal) -> None:
    for number in range(20):
        await me.run("vault", "store", "long", json.dumps({"text": "x" * 20_000}), "--key", str(number))
    codes = 'exec 3>&1; { "$@"; echo $? >&3; } | head -c 1 >/dev/null'
    for arguments in (("vault", "query", "long"), ("usage", "--json"), ("plans",)):
        ended = await me.process(*arguments, shell=codes)
        assert (ended.out, ended.err) == ("0\n", "")


WITHOUT_READER = """
mkfifo "$FIFO" && exec 3>&1 4<>"$FIFO" 5>"$FIFO" 4<&-
"$@" >&5
echo $?
"""
"""Whoever has opened the pipe to read from it is gone before the command begins."""

FROM_TYPER = [
    ("utf-8", "--help"),
    ("utf-8", "vault", "query", "--help"),
    ("utf-8",),
    ("utf-8", "--show-completion", "bash"),
    ("ascii", "--show-completion", "bash"),
]
"""What typer and rich write by themselves, after the encoding of standard output."""


@pytest.mark.parametrize("given", [*FROM_TYPER, ("utf-8", "--version")], ids=" ".join)
async def test_the_reader_of_a_help_may_leave(tmp_path: Path, given: tuple[str, ...]) -> None:
    encoding, *arguments = given
    anybody = Terminal({"FIFO": str(tmp_path / "pipe"), "PYTHONIOENCODING": encoding})
    ended = await anybody.process(*arguments, shell=WITHOUT_READER)
    assert (ended.code, ended.out, ended.err) == (0, "0\n", "")


@pytest.mark.parametrize("words", ["flowstack ", "flowstack vault "])
async def test_the_reader_of_completions_may_leave(tmp_path: Path, words: str) -> None:
    pressed_tab = {"_FLOWSTACK_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "1"}
    ended = await Terminal(pressed_tab | {"FIFO": str(tmp_path / "pipe")}).process(shell=WITHOUT_READER)
    assert (ended.code, ended.out, ended.err) == (0, "0\n", "")


@pytest.mark.parametrize("arguments", [("usage",), ("usage", "--json"), ("chat", "hi", *ECHO)], ids=" ".join)
async def test_a_full_disk_is_told(me: Terminal, arguments: tuple[str, ...]) -> None:
    ended = await me.process(*arguments, shell='"$@" >/dev/full')
    assert ended.code == 2
    assert "Standard output cannot be written: No space left on device" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("given", FROM_TYPER, ids=" ".join)
async def test_a_full_disk_is_told_of_a_help_too(given: tuple[str, ...]) -> None:
    encoding, *arguments = given
    ended = await Terminal({"PYTHONIOENCODING": encoding}).process(*arguments, shell='"$@" >/dev/full')
    assert (ended.code, ended.err) == (
        2,
        "Error: Standard output cannot be written: No space left on device. Send it somewhere else.\n",
    )
