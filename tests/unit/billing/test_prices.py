"""What providers charge: by kind of token, by tier and time; unknown is never 0."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage, __version__, calc_price

from services.billing.adapters.price_table import SEED_READ, PriceTable, load_prices
from services.billing.domain.ledger import CredentialMode, EventType, LedgerEntry
from services.billing.domain.prices import ModelPrice, Rates, Tier, Tokens, cost_micro, stamped
from services.shared.settings import StartupError
from tests.support.clock import us

NOW_US = us(2026, 11, 24)
PRICE = ModelPrice(
    "v1", Rates(1_000_000, 10_000_000, 100_000, 1_250_000), (Tier(200_000, Rates(2_000_000, 20_000_000)),)
)


def price_of(provider: str, model: str, at_us: int) -> ModelPrice | None:
    return PRICE if (provider, model) == ("anthropic", "claude") else None


def session(detail: dict[str, Any] | None = None, **fields: Any) -> LedgerEntry:
    values: dict[str, Any] = dict.fromkeys(LedgerEntry._fields, 0) | {
        "account_id": "acct_1",
        "session_id": "ses_1",
        "event": EventType.COMMITTED,
        "credential_mode": CredentialMode.BYOK,
        "served_provider": "anthropic",
        "served_model": "claude",
        "cached_input_tokens": None,
        "cache_write_tokens": None,
        "reasoning_tokens": None,
        "input_tokens": 1_000,
        "output_tokens": 100,
        "labels": "{}",
        "detail": json.dumps(detail or {}, separators=(",", ":")),
        "provider_cost_micro": None,
        "price_table_version": "",
    }
    return LedgerEntry(**(values | fields))


def attempt(failure: int, provider: str = "anthropic", model: str = "claude") -> list[Any]:
    return [provider, model, failure, None, None]


STALLED, UNREACHABLE = 8, 1


@pytest.mark.parametrize(
    ("entry", "cost"),
    [
        (session(), 2_000),
        (session(cached_input_tokens=400, cache_write_tokens=100), 500 + 40 + 125 + 1_000),
        (session(input_tokens=0, output_tokens=0), 0),
        (session(input_tokens=200_000), 201_000),
        (session(input_tokens=200_001), 402_002),
        (session({"tool_call_count": 1}, input_tokens=200_001), None),
        (session({"tool_call_count": 1}, input_tokens=200_000), 201_000),
        (session(input_tokens=None), None),
        (session(output_tokens=None), None),
        (session(cached_input_tokens=1_001), None),
        (session(cached_input_tokens=600, cache_write_tokens=401), None),
        (session(reasoning_tokens=101), None),
        (session(served_model="another"), None),
        (session(credential_mode=CredentialMode.MANAGED), None),
        (session({"attempts": [attempt(UNREACHABLE), attempt(0)]}), 2_000),
        (session({"attempts": [attempt(STALLED), attempt(0)]}), None),
        (
            session({"candidates": [["openai", "m", 1], ["anthropic", "claude", 2]], "attempts": [
                attempt(STALLED, "openai", "m"), attempt(0)]}),
            2_000,
        ),
    ],
)  # fmt: skip
def test_costs_of_sessions(entry: LedgerEntry, cost: int | None) -> None:
    found = stamped(entry, price_of)
    assert found.provider_cost_micro == cost
    assert found.price_table_version == ("v1" if cost is not None else "")
    assert found[:-2] == entry[:-2]


@pytest.mark.parametrize(
    ("event", "failures", "cost"),
    [
        (EventType.RELEASED, [], 0),
        (EventType.RELEASED, [UNREACHABLE, 3, 4], 0),
        (EventType.RELEASED, [UNREACHABLE, STALLED], None),
        (EventType.EXPIRED, [], None),
        (EventType.COMMITTED, [], None),
    ],
)
def test_costs_of_sessions_that_nobody_served(event: int, failures: list[int], cost: int | None) -> None:
    entry = session({"attempts": [attempt(failure) for failure in failures]}, event=event, served_provider="")
    assert stamped(entry, price_of).provider_cost_micro == cost


def test_a_price_that_lacks_makes_a_cost_unknown() -> None:
    assert cost_micro(Rates(5, None), Tokens(1_000_000, 1)) is None
    assert cost_micro(Rates(5, None), Tokens(1_000_000, 0)) == 5
    assert cost_micro(Rates(1, 1), Tokens(500_000, 0)) == 1, "rounded half up"
    assert cost_micro(Rates(1, 1), Tokens(499_999, 0)) == 0


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-mini"),
        ("openai", "gpt-4o-2024-08-06"),
        ("openai", "o3"),
        ("anthropic", "claude-sonnet-4-5-20250929"),
        ("anthropic", "claude-opus-4-6"),
        ("anthropic", "claude-haiku-5-5"),
        ("aws", "us.amazon.nova-pro-v1:0"),
        ("aws", "global.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ],
)
@pytest.mark.parametrize("inputs", [10_000, 250_000])
def test_costs_are_those_of_the_package_that_the_prices_come_from(provider: str, model: str, inputs: int) -> None:
    ours = PriceTable().price_of("bedrock" if provider == "aws" else provider, model, NOW_US)
    assert ours is not None
    cached = 3_000 if ours.rates.cached_input is not None else 0
    written = 2_000 if ours.rates.cache_write is not None else 0
    usage = Usage(input_tokens=inputs, output_tokens=777, cache_read_tokens=cached, cache_write_tokens=written)
    theirs = calc_price(usage, model_ref=model, provider_id=provider).total_price
    found = cost_micro(ours.rates_at(inputs), Tokens(inputs, 777, cached, written))
    assert found is not None
    assert abs(Decimal(found) - theirs * 1_000_000) <= Decimal("0.5")


def test_parts_that_are_more_than_the_whole_make_a_cost_unknown() -> None:
    rates = Rates(1_000_000, 10_000_000, 100_000, 1_250_000)
    assert cost_micro(rates, Tokens(1_000, 0, 5_000)) is None
    assert cost_micro(rates, Tokens(1_000, 0, 600, 401)) is None
    assert cost_micro(rates, Tokens(0, 10, reasoning=500)) is None
    assert cost_micro(rates, Tokens(1_000, 10, 600, 400, 10)) == 60 + 500 + 100, "all of it, and no more, is in order"


def test_prices_have_their_times() -> None:
    table = PriceTable()
    before = table.price_of("anthropic", "claude-opus-4-6", us(2026, 3, 12))
    after = table.price_of("anthropic", "claude-opus-4-6", us(2026, 3, 13))
    assert before is not None
    assert after is not None
    assert (bool(before.tiers), bool(after.tiers)) == (True, False)


def test_what_is_not_listed_is_unknown_and_the_simulator_is_free() -> None:
    table = PriceTable()
    assert table.price_of("openai", "no-such-model", NOW_US) is None
    assert table.price_of("vllm", "gpt-4o", NOW_US) is None
    echo = table.price_of("echo", "echo-1", NOW_US)
    assert echo is not None
    assert echo.rates == Rates(0, 0)


def test_when_the_prices_were_read_is_known() -> None:
    assert __version__ in SEED_READ, "say when the prices of the new version were current"
    assert PriceTable().version == f"genai-prices-{__version__}"


OWN = """
version = "acme-7"
price_time = 2026-10-01T00:00:00Z

[[prices]]
provider = "openai"
model = "gpt-4o*"
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "2.5"

[[prices]]
provider = "openai"
model = "gpt-4o-mini"
start_time = 2026-06-01T00:00:00Z
input_usd_per_million_tokens = "0.1"
output_usd_per_million_tokens = "0.2"
cached_input_usd_per_million_tokens = "0.01"
tiers = [{ above_input_tokens = 1000, input_usd_per_million_tokens = "3", output_usd_per_million_tokens = "4" }]
"""


SAME_AGAIN = """
[[prices]]
provider = "openai"
model = "gpt-4o-mini"
start_time = 2026-06-01T02:00:00+02:00
input_usd_per_million_tokens = "9"
output_usd_per_million_tokens = "9"
tiers = [
    { above_input_tokens = 200, input_usd_per_million_tokens = "3", output_usd_per_million_tokens = "4" },
    { above_input_tokens = 300, input_usd_per_million_tokens = "5", output_usd_per_million_tokens = "6" },
]
"""

ANNOUNCED = """
version = "acme-8"

[[prices]]
provider = "openai"
model = "gpt-4"
start_time = 2030-01-01T00:00:00Z
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "2"

[[prices]]
provider = "anthropic"
model = "claude-opus*"
start_time = 2030-01-01T00:00:00Z
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "2"

[[prices]]
provider = "vllm"
model = "own"
start_time = 2030-01-01T00:00:00Z
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "2"
"""


def test_the_operators_prices_stand_before_ours(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(OWN)
    table = load_prices(path)
    assert table.version == f"acme-7+genai-prices-{__version__}"
    assert table.price_us == us(2026, 10, 1)
    assert table.price_of("openai", "gpt-4o-2024-08-06", NOW_US) == ModelPrice("acme-7", Rates(1_000_000, 2_500_000))
    mini = table.price_of("openai", "gpt-4o-mini", NOW_US)
    # What a tier does not name is as without it, which is how genai-prices reads prices of which some have tiers.
    tier = Tier(1_000, Rates(3_000_000, 4_000_000, 10_000))
    assert mini == ModelPrice("acme-7", Rates(100_000, 200_000, 10_000), (tier,))
    before = table.price_of("openai", "gpt-4o-mini", us(2026, 5, 31))
    assert before == ModelPrice("acme-7", Rates(1_000_000, 2_500_000)), "before its start the pattern holds"
    gpt_4 = table.price_of("openai", "gpt-4", NOW_US)
    assert gpt_4 is not None
    assert gpt_4.version.startswith("genai-prices-")


def test_until_an_announced_price_begins_the_one_that_ships_holds(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(ANNOUNCED)
    table, ships = load_prices(path), PriceTable()
    start_us = us(2030, 1, 1)
    assert table.price_of("openai", "gpt-4", start_us - 1) == ships.price_of("openai", "gpt-4", start_us - 1)
    assert table.price_of("openai", "gpt-4", start_us) == ModelPrice("acme-8", Rates(1_000_000, 2_000_000))
    assert table.price_of("anthropic", "claude-opus-4-6", us(2026, 3, 12)) == ships.price_of(
        "anthropic", "claude-opus-4-6", us(2026, 3, 12)
    )
    assert table.price_of("vllm", "own", start_us - 1) is None, "nothing ships for it"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "cannot be read"),
        ("version = 7", "version"),
        ("prices = []", "version"),
        (OWN.replace('"2.5"', '"-2.5"'), "output_usd_per_million_tokens"),
        (OWN.replace('"2.5"', "2.5"), "output_usd_per_million_tokens"),
        (OWN + "colour = 'red'\n", "colour"),
        (OWN + SAME_AGAIN, r"prices\[2\]: openai gpt-4o-mini has a price from 2026-06-01 .* in prices\[1\] already"),
        (OWN + SAME_AGAIN.replace("mini", "mini-2").replace("300", "200"), r"prices\[2\]\.tiers\[1\]: .* 200 "),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path: Path, text: str | None, problem: str) -> None:
    path = tmp_path / "prices.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StartupError, match=problem):
        load_prices(path)
