from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from services.router.catalog import load, parse
from services.router.domain.request import Choice
from services.shared.errors import FlowStackError, Reason
from services.shared.settings import StartupError

ROOT = Path(__file__).parents[3]
FILE = """
[providers.local]
kind = "openai"
base_url = "http://127.0.0.1:8000/v1"
any_model = true
managed_without_key = true
max_tokens_field = "max_tokens"
include_usage = false

[providers.openai]
kind = "openai"
managed_api_key_env = "OPENAI_API_KEY"

[providers.openai.models."gpt-4o"]
aliases = ["best", "omni"]
context_tokens = 128000
input_modalities = ["text", "image"]
input_price_usd_per_million_tokens = "2.50"
"""


def test_the_file_that_is_shipped() -> None:
    catalog = load(ROOT / "deploy" / "providers.toml")

    assert catalog.find(Choice("echo", "echo-1"))[1] == "echo-1"
    entry, model = catalog.find(Choice("openai", "gpt-4o"))
    assert (entry.kind, entry.managed_api_key_env, model) == ("openai", "OPENAI_API_KEY", "gpt-4o")
    assert entry.models["gpt-4o"].input_price_micros == 2_500_000


def test_what_a_file_says() -> None:
    catalog = parse(tomllib.loads(FILE))

    model = catalog.providers["openai"].models["gpt-4o"]
    assert (model.aliases, model.context_tokens, model.input_price_micros) == (("best", "omni"), 128000, 2_500_000)
    assert model.output_price_micros is None
    assert catalog.find(Choice("openai", "omni"))[1] == "gpt-4o"
    local, name = catalog.find(Choice("local", "whatever"))
    assert (local.max_tokens_field, local.include_usage, name) == ("max_tokens", False, "whatever")


@pytest.mark.parametrize(("provider", "model"), [("openai", "gpt-9"), ("elsewhere", "gpt-4o"), ("openai", "")])
def test_what_is_not_there(provider: str, model: str) -> None:
    with pytest.raises(FlowStackError) as caught:
        parse(tomllib.loads(FILE)).find(Choice(provider, model))
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


def provider(**fields: Any) -> dict[str, Any]:
    return {"providers": {"p": {"kind": "openai", **fields}}}


def model(**fields: Any) -> dict[str, Any]:
    return provider(models={"m": fields})


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"provider": {}}, "provider is not known"),
        ({"providers": []}, "providers has to be a table"),
        (provider(kind="vertex"), "providers.p.kind"),
        (provider(regions=["us-east-1"]), "providers.p.regions is not known"),
        (provider(kind="anthropic", include_usage=True), "providers.p.include_usage is not known"),
        (provider(kind="bedrock", managed_api_key_env="X", regions=["us-east-1"]), "managed_api_key_env is not known"),
        (provider(kind="bedrock"), "providers.p.regions has to be a list"),
        (provider(kind="bedrock", regions=[]), "providers.p.regions has to be a list of AWS regions"),
        (provider(kind="bedrock", regions=["mars"]), "providers.p.regions has to be a list of AWS regions"),
        (
            provider(kind="bedrock", regions=["us-east-1"], managed_aws_credentials="guess"),
            "providers.p.managed_aws_credentials has to be one of environment, boto3",
        ),
        (model(reasoning="much"), "providers.p.models.m.reasoning has to be one of"),
        (model(sampling="no"), "providers.p.models.m.sampling has to be true or false"),
        (provider(kind="smoke"), "providers.p.kind"),
        (provider(base_uri="x"), "providers.p.base_uri is not known"),
        (provider(base_url="ftp://x"), "providers.p.base_url"),
        (provider(base_url="httpfoo"), "providers.p.base_url"),
        (provider(base_url="http://user:pass@host/v1"), "providers.p.base_url"),
        ({"providers": {"UPPER case": {"kind": "echo"}}}, "providers.UPPER case"),
        ({"providers": {"": {"kind": "echo"}}}, "providers."),
        ({"providers": {"x" * 65: {"kind": "echo"}}}, "providers.xxx"),
        (provider(models={"": {}}), "providers.p.models."),
        (provider(models={"x" * 257: {}}), "providers.p.models.xxx"),
        (model(aliases=["x" * 257]), "providers.p.models.m.aliases"),
        (provider(managed_api_key_env="not a variable"), "providers.p.managed_api_key_env"),
        (provider(any_model="yes"), "providers.p.any_model has to be true or false"),
        (provider(base_url=7), "providers.p.base_url has to be a text"),
        (model(price=1), "providers.p.models.m.price is not known"),
        (model(context_tokens=0), "providers.p.models.m.context_tokens"),
        (model(context_tokens=True), "providers.p.models.m.context_tokens"),
        (model(aliases="a"), "providers.p.models.m.aliases"),
        (model(input_modalities=["smell"]), "providers.p.models.m.input_modalities"),
        (model(input_price_usd_per_million_tokens=2.5), "input_price_usd_per_million_tokens"),
        (model(input_price_usd_per_million_tokens="cheap"), "input_price_usd_per_million_tokens"),
        (model(input_price_usd_per_million_tokens="-1"), "input_price_usd_per_million_tokens"),
        (model(input_price_usd_per_million_tokens="NaN"), "input_price_usd_per_million_tokens"),
        (provider(models={"m": {"aliases": ["n"]}, "n": {}}), "the alias n stands for two"),
        (provider(models={"m": {"aliases": ["a"]}, "n": {"aliases": ["a"]}}), "the alias a stands for two"),
    ],
)
def test_what_is_not_understood_is_named(document: dict[str, Any], path: str) -> None:
    with pytest.raises(ValueError, match=path.replace(".", r"\.")):
        parse(document)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("[providers.p]\nkind = 'openai'\n\n[providers.p.models.m]\ncontext_tokens = 0\n", 5),
        ("[providers.p]\nkind = 'openai'\nbase_uri = 'x'\n", 3),
        ("# one\n\n[providers.p]\nbase_url = 'http://h'\n", 3),
        ("[providers.p]\nkind = 'openai'\n[providers.p.models.m]\naliases = ['n']\n[providers.p.models.n]\n", 4),
        ("[providers.p]\nkind = 'openai'\nbase_url = \n", 3),
    ],
)
def test_an_error_names_its_line(tmp_path: Path, content: str, line: int) -> None:
    path = tmp_path / "providers.toml"
    path.write_text(content)
    with pytest.raises(StartupError, match=rf"line {line}\b"):
        load(path)


@pytest.mark.parametrize(
    ("provider", "model", "near"),
    [
        ("openai", "gpt4o", "gpt-4o"),
        ("openai", "omny", "omni"),
        ("opnai", "gpt-4o", "openai"),
        ("openai", "claude", ""),
        ("zzz", "gpt-4o", ""),
    ],
)
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(provider: str, model: str, near: str) -> None:
    with pytest.raises(FlowStackError) as caught:
        parse(tomllib.loads(FILE)).find(Choice(provider, model))
    proposed = f"Did you mean {near}?" if near else ""
    assert ("Did you mean" in caught.value.message) is bool(near)
    assert proposed in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[providers\n")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[providers.p]\nkind = 'smoke'\n")

    for path in (tmp_path / "absent.toml", broken, wrong):
        with pytest.raises(StartupError, match=path.name):
            load(path)
