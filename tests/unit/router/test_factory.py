"""Whose credentials the operator has, and where its settings put a provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.router.__main__ import build_lineup
from services.router.catalog import Catalog, ProviderEntry
from services.router.catalog import load as load_catalog
from services.router.config import RouterSettings
from services.router.domain.request import AnthropicCredentials, Choice
from services.router.factory import operators_credentials, with_settings
from services.router.providers.aws import BotoCredentials, FixedCredentials
from services.shared.settings import StartupError, load

ROOT = Path(__file__).parents[3]
AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
ANTHROPIC = ProviderEntry("anthropic", "anthropic", managed_api_key_env="ANTHROPIC_API_KEY")


def bedrock(source: str = "environment", *regions: str) -> ProviderEntry:
    return ProviderEntry("bedrock", "bedrock", regions=regions or ("us-east-1",), managed_aws_credentials=source)


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*AWS, "ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_an_operator_without_credentials() -> None:
    assert operators_credentials(ANTHROPIC) is None
    assert operators_credentials(bedrock()) is None
    assert operators_credentials(bedrock("")) is None


def test_an_operator_with_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("sk-ant-from-a-file\n")
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(key_file))
    found = operators_credentials(ANTHROPIC)

    assert isinstance(found, AnthropicCredentials)
    assert found.api_key.reveal() == "sk-ant-from-a-file"


async def test_an_operator_with_aws_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AWS:
        monkeypatch.setenv(name, f"the-{name}")
    found = operators_credentials(bedrock())

    assert isinstance(found, FixedCredentials)
    credentials = await found.get()
    revealed = (credentials.access_key_id, credentials.secret_access_key, credentials.session_token)
    assert [secret.reveal() for secret in revealed] == [f"the-{name}" for name in AWS]
    assert operators_credentials(bedrock("")) is None, "the file decides whether they are offered"


@pytest.mark.parametrize("name", AWS[:2])
def test_half_of_a_pair(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(StartupError, match="belong together"):
        operators_credentials(bedrock())


def test_credentials_that_boto3_looks_for_are_not_looked_for_yet() -> None:
    assert isinstance(operators_credentials(bedrock("boto3")), BotoCredentials)


@pytest.mark.parametrize("region", ["moon-west-1", "us-east"])
def test_a_region_that_aws_does_not_have(region: str) -> None:
    with pytest.raises(StartupError, match=r"providers\.bedrock\.regions"):
        with_settings(bedrock("", region), load(RouterSettings))


@pytest.mark.parametrize(
    ("setting", "entry"),
    [("anthropic_base_url", ANTHROPIC), ("bedrock_endpoint_url", bedrock())],
    ids=["anthropic", "bedrock"],
)
def test_a_server_of_the_operators_own(setting: str, entry: ProviderEntry) -> None:
    changed = with_settings(entry, load(RouterSettings, **{setting: "http://127.0.0.1:4010"}))

    assert (changed.base_url, changed.any_model) == ("http://127.0.0.1:4010", True)
    assert with_settings(entry, load(RouterSettings)) == entry


async def test_the_file_that_is_shipped_makes_every_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AWS[:2]:
        monkeypatch.setenv(name, "x")
    lineup = build_lineup(load_catalog(ROOT / "deploy" / "providers.toml"), load(RouterSettings))
    for provider in lineup.providers.values():
        await provider.aclose()

    assert set(lineup.providers) == {"echo", "openai", "anthropic", "bedrock"}
    assert lineup.managed == {"bedrock"}, "the one for which there are credentials"
    # Names that callers have used for long.
    assert lineup.catalog.find(Choice("bedrock", "claude-3-sonnet"))[1].startswith("global.anthropic.claude-sonnet-")
    assert lineup.catalog.find(Choice("anthropic", "claude-3-opus"))[1].startswith("claude-opus-")
    assert lineup.catalog.find(Choice("openai", "gpt-4o"))[1] == "gpt-4o"
    assert lineup.catalog.find(Choice("openai", "gpt-3.5-turbo"))[1] == "gpt-3.5-turbo"


async def test_a_compatible_server_is_configuration_alone() -> None:
    ollama = ProviderEntry("ollama", "openai", base_url="http://127.0.0.1:11434/v1", managed_without_key=True)
    lineup = build_lineup(Catalog({"ollama": ollama}), load(RouterSettings))
    await lineup.providers["ollama"].aclose()

    assert lineup.managed == {"ollama"}
