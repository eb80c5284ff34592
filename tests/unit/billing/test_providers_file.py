"""The operator's list of models, as estimates read it: names as the router resolves them, and prices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.billing.adapters.price_table import PriceTable
from services.billing.adapters.providers_file import ProvidersFile
from services.billing.domain.prices import Rates
from services.billing.prices import ListedModel
from services.router import catalog
from services.router.domain.request import Choice
from tests.support.clock import us
from tests.support.suite import ROOT

SHIPPED = ROOT / "deploy" / "providers.toml"
FILE = """
[providers.vllm]
kind = "openai"
base_url = "http://127.0.0.1:8000/v1"
any_model = true

[providers.vllm.models."llama-3"]
aliases = ["default", "llama"]
input_price_usd_per_million_tokens = "0.10"
output_price_usd_per_million_tokens = "0.2"

[providers.vllm.models."half"]
output_price_usd_per_million_tokens = "1"

[providers.vllm.models."llama"]
"""


def test_names_are_those_that_the_router_would_run() -> None:
    routed, listed = catalog.load(SHIPPED), ProvidersFile(SHIPPED)
    for provider, entry in routed.providers.items():
        for name in (*entry.models, *entry.aliases):
            model = routed.find(Choice(provider, name))[1]
            found = listed.find(provider, name)
            assert found.name == model
            prices = (entry.models[model].input_price_micros, entry.models[model].output_price_micros)
            assert found.rates == (None if prices == (None, None) else Rates(*prices))


def test_what_the_list_shows_is_what_sessions_are_priced_at() -> None:
    listed, table = ProvidersFile(SHIPPED), PriceTable()
    for provider, entry in catalog.load(SHIPPED).providers.items():
        for name in entry.models:
            shown, price = listed.find(provider, name).rates, table.price_of(provider, name, us(2026, 11, 28))
            if shown is not None:
                assert price is not None
                assert (price.rates.input, price.rates.output) == shown[:2]


@pytest.mark.parametrize(
    ("provider", "model", "found"),
    [
        ("vllm", "llama-3", ListedModel("llama-3", Rates(100_000, 200_000))),
        ("vllm", "default", ListedModel("llama-3", Rates(100_000, 200_000))),
        ("vllm", "half", ListedModel("half", Rates(None, 1_000_000))),
        # A model stands before an alias. The router refuses a file with both.
        ("vllm", "llama", ListedModel("llama", None)),
        ("vllm", "another", ListedModel("another", None)),
        ("openai", "default", ListedModel("default", None)),
    ],
)
def test_models_are_found_by_name_and_by_alias(tmp_path: Path, provider: str, model: str, found: ListedModel) -> None:
    path = tmp_path / "providers.toml"
    path.write_text(FILE)
    assert ProvidersFile(path).find(provider, model) == found


def test_without_the_file_names_stand_for_themselves_until_it_comes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "providers.toml"
    listed = ProvidersFile(path)
    assert listed.find("vllm", "default") == ListedModel("default", None)
    said = capfd.readouterr()
    assert (said.out + said.err).count("FLOWSTACK_PROVIDERS_FILE") == 1, "once, not with each estimate"
    path.write_text(FILE)
    assert listed.find("vllm", "default").name == "llama-3"


@pytest.mark.parametrize("bad", ["[providers", "providers = 7", '[providers.vllm.models."x"]\naliases = "y"', "\xff"])
def test_a_bad_file_changes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str], bad: str) -> None:
    path = tmp_path / "providers.toml"
    path.write_text(FILE)
    listed = ProvidersFile(path)
    path.write_bytes(bad.encode("latin-1"))
    assert listed.find("vllm", "default").name == "llama-3"
    said = capfd.readouterr()
    assert "refused" in said.out + said.err
    replacement = tmp_path / "new.toml"
    replacement.write_text(FILE.replace("llama-3", "llama-4"))
    os.replace(replacement, path)
    assert listed.find("vllm", "default").name == "llama-4"
