"""What the router makes of its file of providers and its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.router.__main__ import build_lineup
from services.router.catalog import Catalog, Model, ProviderEntry
from services.router.config import RouterSettings
from services.router.domain.request import Choice
from services.router.providers.http import HttpClient
from services.shared.errors import FlowStackError, Reason
from services.shared.settings import StartupError, load

CATALOG = Catalog(
    {
        "openai": ProviderEntry(
            "openai", "openai", base_url="https://api.openai.com/v1", models={"gpt-4o": Model("gpt-4o")}
        ),
        "other": ProviderEntry("other", "openai", base_url="http://127.0.0.1:1/v1", models={"m": Model("m")}),
    }
)


async def test_a_server_of_the_operators_own_takes_any_model() -> None:
    settings = load(RouterSettings, openai_base_url="http://127.0.0.1:8000/v1")
    lineup = build_lineup(CATALOG, settings)
    try:
        entry, model = lineup.catalog.find(Choice("openai", "llama-3"))
        assert (entry.base_url, model) == ("http://127.0.0.1:8000/v1", "llama-3")
        with pytest.raises(FlowStackError) as caught:
            lineup.catalog.find(Choice("other", "llama-3"))
    finally:
        for provider in lineup.providers.values():
            await provider.aclose()

    assert caught.value.reason is Reason.MODEL_NOT_FOUND


@pytest.mark.parametrize("url", [None, ""])
async def test_the_providers_own_server_takes_its_models_only(url: str | None) -> None:
    lineup = build_lineup(CATALOG, load(RouterSettings, openai_base_url=url))
    try:
        with pytest.raises(FlowStackError) as caught:
            lineup.catalog.find(Choice("openai", "llama-3"))
    finally:
        for provider in lineup.providers.values():
            await provider.aclose()

    assert caught.value.reason is Reason.MODEL_NOT_FOUND
    assert lineup.catalog.providers["openai"].base_url == "https://api.openai.com/v1"


async def test_a_key_that_is_not_valid_is_told_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    made = HttpClient.__init__

    def noted(self: HttpClient, *args: Any, **kwargs: Any) -> None:
        opened.append(self)
        made(self, *args, **kwargs)

    monkeypatch.setattr(HttpClient, "__init__", noted)
    monkeypatch.setenv("THIRD_KEY", "two\nlines")
    third = ProviderEntry("third", "openai", managed_api_key_env="THIRD_KEY")
    with pytest.raises(StartupError, match="THIRD_KEY"):
        build_lineup(Catalog({**CATALOG.providers, "third": third}), load(RouterSettings))

    assert opened == []
