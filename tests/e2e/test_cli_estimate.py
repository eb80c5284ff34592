"""`flowstack estimate` over the running services: the published comparison beside today's prices."""

from __future__ import annotations

import pytest_asyncio

from tests.e2e.terminal import Terminal, customer_of
from tests.support.suite import Suite


@pytest_asyncio.fixture(loop_scope="session")
async def me(suite: Suite) -> Terminal:
    return (await customer_of(suite, "starter"))[1]


def lines(out: str) -> list[list[str]]:
    """What is printed, line by line and cell by cell."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in out.splitlines()]


async def test_the_published_comparison_beside_todays_prices(me: Terminal) -> None:
    ended = await me.run("estimate", "1000")
    assert ended.code == 0, ended.err
    found = lines(ended.out)
    assert ["starter", "1,000", "managed", "$50.00", "included", "$50.00", "included", "$50.00"] in found
    # 5,625,000 tokens at $30 and 1,875,000 at $60 a million.
    assert ["starter", "1,000", "your own", "$50.00", "$75.00", "$125.00", "$281.25", "$331.25"] in found
    assert found[1][0] == "starter"
    assert "never a provider's" in ended.out
    volume = lines((await me.run("estimate", "10000")).out)
    assert ["volume-10k (offer)", "10,000", "managed", "$99.00", "included", "$99.00", "included", "$99.00"] in volume
    (own,) = [row for row in volume if row[2:3] == ["your own"]]
    assert own[3:6] == ["$99.00", "$300.00 to $800.00", "$399.00 to $899.00"]


async def test_an_alias_and_an_unknown_model(me: Terminal) -> None:
    opus = ("estimate", "25", "--provider", "anthropic", "--model", "claude-3-opus")
    ended = await me.run(*opus, "--input-tokens", "1000000", "--output-tokens", "0")
    assert "claude-3-opus is an alias: claude-opus-4-5-20251101 is what runs" in ended.out
    assert ["free", "25", "your own", "$0.00", "unknown", "unknown", "$125.00", "$125.00"] in lines(ended.out)
    unknown = await me.run("estimate", "25", "--model", "nobodys")
    assert unknown.code == 0
    assert "Today's price of nobodys is not known here." in unknown.out


async def test_estimates_for_machines_and_bad_ones(me: Terminal) -> None:
    told = await me.json("estimate", "10000")
    byok = [one for one in told["example"]["estimates"] if one["credential_mode"] == "CREDENTIAL_MODE_BYOK"]
    assert [(one["total"]["units"], one["total_high"]["units"]) for one in byok] == [("399", "899")]
    assert told["current"]["price_table_version"].startswith("genai-prices-")
    assert "No plan on sale allows 30,000 sessions" in (await me.run("estimate", "30000")).out
    for bad in (("estimate",), ("estimate", "0"), ("estimate", "5", "--input-tokens", "0")):
        assert (await me.run(*bad)).code == 2
