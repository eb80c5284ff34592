"""`flowstack` on the command line over the running services, as people and as scripts use it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest_asyncio

from tests.e2e.terminal import Terminal, addresses, customer_of, operator_of
from tests.support.suite import ROOT, Suite

ECHO = ("--provider", "echo", "--model", "echo-1")


@pytest_asyncio.fixture(loop_scope="session")
async def me(suite: Suite) -> Terminal:
    return (await customer_of(suite, "starter"))[1]


async def test_a_chat_is_streamed_and_says_what_it_cost(me: Terminal) -> None:
    ended = await me.run("chat", "Hello from a terminal", *ECHO)
    assert (ended.code, ended.out) == (0, "Hello from a terminal\n")
    assert "1 session, 999 left of 1,000" in ended.err
    answer = await me.json("chat", "Hello again", *ECHO)
    assert answer["text"] == "Hello again"
    assert answer["session"]["state"] == "committed"
    assert answer["session"]["sessions_used"] == 2


async def test_a_prompt_comes_from_a_pipe(me: Terminal) -> None:
    assert (await me.run("chat", "-", *ECHO, stdin="from a file")).out == "from a file\n"


async def test_plans_are_listed_with_the_offer(me: Terminal) -> None:
    ended = await me.run("plans")
    assert "professional" in ended.out
    assert "volume-10k (offer)" in ended.out
    assert "$200.00" in ended.out
    listed = await me.json("plans")
    assert [plan["plan_id"] for plan in listed["plans"]][:2] == ["free", "hobbyist"]


async def test_a_subscription_is_changed_cancelled_and_reverted(me: Terminal) -> None:
    preview = await me.json("subscription", "change", "professional", "--preview")
    assert preview["change"]["state"] == "CHANGE_STATE_PREVIEW"
    assert "starter, version" in (await me.run("subscription", "show")).out
    ended = await me.run("subscription", "change", "professional")
    assert "upgrade" in ended.out
    assert "$150.00" in ended.out
    assert (await me.json("subscription", "show"))["subscription"]["plan_id"] == "professional"
    assert "cancellation" in (await me.run("subscription", "cancel", "--reason", "a test")).out
    assert "cancellation to" in (await me.run("subscription", "show")).out
    assert (await me.run("subscription", "revert")).code == 0
    again = await me.run("--json", "subscription", "revert")
    assert (again.code, again.error["reason"]) == (6, "NO_PENDING_CHANGE")


async def test_invoices_are_listed_shown_and_saved(me: Terminal, tmp_path: Path) -> None:
    (invoice,) = (await me.json("invoices", "list"))["invoices"]
    assert invoice["number"] in (await me.run("invoices", "list")).out
    shown = await me.run("invoices", "show", invoice["number"])
    assert "Starter" in shown.out
    assert "$50.00" in shown.out
    target = tmp_path / "mine.pdf"
    saved = await me.json("invoices", "pdf", invoice["invoice_id"], "--output", str(target))
    assert saved["file"] == str(target)
    assert target.read_bytes().startswith(b"%PDF-")
    nowhere = await me.run("invoices", "pdf", invoice["invoice_id"], "-o", str(tmp_path / "no" / "where.pdf"))
    assert nowhere.code == 2
    assert "cannot be written" in nowhere.err


async def test_keys_are_made_rotated_and_revoked(me: Terminal) -> None:
    made = await me.run("keys", "create", "laptop")
    secret = made.out.splitlines()[-1]
    assert secret.startswith("fs_")
    other = Terminal(me.variables | {"FLOWSTACK_API_KEY": secret})
    key_id = next(
        key["api_key_id"] for key in (await other.json("keys", "list"))["api_keys"] if key["display_name"] == "laptop"
    )
    rotated = await me.json("keys", "rotate", key_id, "--overlap-hours", "1")
    assert rotated["secret"].startswith("fs_")
    assert (await me.run("keys", "revoke", key_id)).code == 0
    refused = await other.run("keys", "list")
    assert refused.code == 3
    assert secret not in refused.err
    assert "revoked" in (await me.run("keys", "list", "--all")).out


async def test_documents_go_in_and_come_out_as_they_are(me: Terminal) -> None:
    assert (await me.run("vault", "store", "notes", '{"n": 12345678901234567890}', "--key", "big")).code == 0
    assert (await me.run("vault", "retrieve", "notes", "big")).out == '{"n": 12345678901234567890}\n'
    for number in range(3):
        await me.json("vault", "store", "points", json.dumps({"n": number}))
    found = await me.run("vault", "query", "points", "--sort=-n", "--limit", "2", "--filter", '{"n": {"$gte": 1}}')
    assert [json.loads(line.split("\t")[1])["n"] for line in found.out.splitlines()] == [2, 1]
    assert "points" in (await me.run("vault", "collections")).out
    assert (await me.json("vault", "delete", "points", "--filter", '{"n": 0}'))["deleted_count"] == 1
    assert (await me.run("vault", "delete", "points")).code == 2
    missing = await me.run("--json", "vault", "retrieve", "notes", "small")
    assert missing.code == 4


async def test_the_operator_opens_suspends_and_deletes_an_account(suite: Suite) -> None:
    operator = operator_of(suite)
    made = await operator.json("admin", "accounts", "create", "Ada", "ada@cli.example", "--plan", "hobbyist", "--key")
    account_id = made["account"]["account_id"]
    owner = Terminal(addresses(suite) | {"FLOWSTACK_API_KEY": made["secret"]})
    assert (await owner.run("chat", "hi", *ECHO)).code == 0
    listed = await operator.run("admin", "accounts", "list", "--email", "ada@cli.example")
    assert account_id in listed.out
    contract = await operator.json("admin", "contracts", "put", account_id, "--offer", "volume-10k")
    assert contract["change"]["to_terms"]["session_limit"] == 10_000
    assert "10,000 a month" in (await operator.run("admin", "contracts", "show", account_id)).out
    assert "volume-10k" in str(await operator.json("--account", account_id, "subscription", "show"))
    await operator.json("admin", "accounts", "suspend", account_id, "--reason", "a test")
    refused = await owner.run("--json", "chat", "hi", *ECHO)
    assert (refused.code, refused.error["reason"]) == (6, "ACCOUNT_SUSPENDED")
    await operator.json("admin", "accounts", "lift", account_id)
    assert (await operator.run("admin", "accounts", "delete", account_id, "--yes")).code == 0
    assert (await owner.run("keys", "list")).code == 3
    customer = await owner.run("admin", "accounts", "list")
    assert customer.code == 2
    assert "FLOWSTACK_ADMIN_TOKEN" in customer.err


async def test_the_limit_is_an_error_of_its_own_and_usage_still_answers(suite: Suite) -> None:
    _, free = await customer_of(suite, "free")
    for _ in range(25):
        assert (await free.run("chat", "one more", *ECHO)).code == 0
    refused = await free.run("--json", "chat", "one too many", *ECHO)
    assert refused.code == 5
    assert refused.error["reason"] == "SESSION_QUOTA_EXCEEDED"
    assert refused.error["details"]["current_usage"] == "25"
    assert (await free.run("vault", "store", "after", "{}")).code == 0
    shown = await free.run("usage")
    assert "25 of 25 sessions used" in shown.out
    assert "are refused: SESSION_QUOTA_EXCEEDED" in shown.out


async def test_usage_is_shown_and_drawn(me: Terminal, tmp_path: Path) -> None:
    await me.run("chat", "one", *ECHO)
    chart = tmp_path / "usage.svg"
    shown = await me.run("usage", "--advice", "--chart", str(chart))
    assert re.search(r"^Today +1 session *$", shown.out, re.MULTILINE), shown.out
    assert re.search(r"^Left +999 sessions *$", shown.out, re.MULTILINE), shown.out
    assert shown.code == 0, shown.err
    assert "1 of 1,000 sessions used" in shown.out
    assert "Forecast" in shown.out
    assert chart.read_text().startswith("<svg")
    told = await me.json("usage", "--advice")
    assert told["usage"]["sessions_used"] == 1
    assert told["forecast"]["sessions_limit"] == 1000
    assert "recommendations" in told["cost_analysis"]


async def test_budgets_and_alerts_are_set_and_shown(me: Terminal) -> None:
    assert "There is no budget" in (await me.run("budget", "show")).out
    assert (await me.run("budget", "set", "$1,000", "--action", "block")).code == 0
    assert "$1,000.00 a month" in (await me.run("budget", "show")).out
    negative = await me.run("budget", "set", "--", "-5")
    assert negative.code == 2
    assert (await me.run("budget", "clear")).code == 0
    assert "40 %, 80 %" in (await me.run("alerts", "thresholds", "40", "80")).out
    assert (await me.run("alerts", "thresholds", "400")).code == 2
    sent = await me.run("alerts", "send", "all is well", "--severity", "warning")
    assert "there is no webhook" in sent.out
    assert "all is well" in (await me.run("alerts", "list")).out
    assert "nobody" in (await me.run("alerts", "send-to")).out
    unknown = await me.run("--json", "alerts", "send-to", "wh_0")
    assert (unknown.code, unknown.error["reason"]) == (4, "WEBHOOK_NOT_FOUND")
    assert "There are no webhooks." in (await me.run("alerts", "webhooks", "list")).out
    assert (await me.run("alerts", "webhooks", "add", "http://169.254.169.254/latest")).code == 2


async def test_the_program_is_installed_and_says_its_version() -> None:
    program = Path(sys.executable).parent / "flowstack"
    environment = {"PATH": os.environ["PATH"]}
    for command in ([str(program)], [sys.executable, "-m", "flowstack"]):
        ended = subprocess.run(
            [*command, "--version"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        assert ended.stdout.startswith("flowstack 0.")
