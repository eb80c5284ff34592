"""The operator's file of providers and models, `deploy/providers.toml`, parsed and checked."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from services.router.domain.request import Choice
from services.router.providers.traits import Reasoning
from services.shared.errors import FlowStackError, Reason
from services.shared.settings import StartupError
from services.shared.toml_lines import line_of

KINDS: Final = ("echo", "openai", "anthropic", "bedrock")
"""The protocols that are built in."""

MODEL_BYTES_MAX: Final = 256
"""What a request's `model` can hold."""

NEAR_MAX: Final = 3
"""How many names are proposed for one that is not known."""

MODALITIES: Final = ("text", "image")
REASONING: Final = tuple(way.value for way in Reasoning)
MICROS: Final = 1_000_000
AWS_SOURCES: Final = ("environment", "boto3")
"""The settings AWS_ACCESS_KEY_ID and its like alone, or wherever boto3 finds credentials: profiles, roles."""

_PROVIDER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""What a request's `provider` can hold."""
_REGION: Final = re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]+")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Model:
    """One model. What is None is unknown. Prices are micro-USD for a million tokens."""

    name: str
    aliases: tuple[str, ...] = ()
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    input_modalities: tuple[str, ...] = ("text",)
    output_modalities: tuple[str, ...] = ("text",)
    input_price_micros: int | None = None
    output_price_micros: int | None = None
    reasoning: str | None = None
    """How it is told how much to reason: one of the values of Reasoning."""
    sampling: bool = True
    """Whether it takes temperature and top_p."""


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """One provider."""

    name: str
    kind: str
    """The protocol it speaks: one of KINDS."""
    base_url: str = ""
    """Where it is; empty means the protocol's own address."""
    managed_api_key_env: str = ""
    """The variable that holds the operator's own key; empty where there is none."""
    managed_without_key: bool = False
    """The server asks for no key, so that the operator can offer it without one."""
    regions: tuple[str, ...] = ()
    """For Bedrock: the AWS regions that are offered; the first is the default."""
    managed_aws_credentials: str = ""
    """For Bedrock: where the operator's own credentials come from, one of AWS_SOURCES; empty where there are none."""
    any_model: bool = False
    """Takes model names that are not listed, as a server for the caller's own keys may."""
    max_tokens_field: str = "max_completion_tokens"
    """What the server calls the output token limit; older ones say `max_tokens`."""
    include_usage: bool = True
    """Whether the server takes `stream_options.include_usage`."""
    models: Mapping[str, Model] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every provider that is configured, by name."""

    providers: Mapping[str, ProviderEntry]

    def find(self, choice: Choice) -> tuple[ProviderEntry, str]:
        """The provider of `choice`, and its own name for the model.

        Raises:
            FlowStackError: MODEL_NOT_FOUND.
        """
        entry = self.provider(choice.provider)
        if choice.model in entry.models:
            return entry, choice.model
        if choice.model in entry.aliases:
            return entry, entry.aliases[choice.model]
        if entry.any_model:
            return entry, choice.model
        near = _near(choice.model, (*entry.models, *entry.aliases))
        raise FlowStackError(
            Reason.MODEL_NOT_FOUND,
            f"The provider {entry.name} has no such model here.{near} ListModels names those that it has.",
            metadata={"provider": entry.name},
        )

    def provider(self, name: str) -> ProviderEntry:
        """The provider called `name`.

        Raises:
            FlowStackError: MODEL_NOT_FOUND.
        """
        entry = self.providers.get(name)
        if entry is None:
            configured = ", ".join(sorted(self.providers)) or "none"
            raise FlowStackError(
                Reason.MODEL_NOT_FOUND,
                f"That provider is not configured here.{_near(name, tuple(self.providers))} Configured: {configured}.",
            )
        return entry


def _near(name: str, known: Sequence[str]) -> str:
    """A question after what may have been meant, to go behind a sentence; empty where nothing is like it."""
    near = difflib.get_close_matches(name, known, NEAR_MAX)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def base_url_fault(url: str) -> str | None:
    """What is wrong with the address of a server, without quoting it; None where nothing is."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a valid address"
    if not url.isascii() or not url.isprintable() or " " in url:
        return "may hold neither spaces nor control characters, and ASCII only"
    if parts.scheme not in ("http", "https") or not host:
        return "has to be an address such as https://api.example.com/v1, with http:// or https:// and a host"
    if "@" in parts.netloc:
        return "may hold neither a name nor a password: keys come from a variable of their own"
    if "?" in url or "#" in url:
        return "may have neither a query nor a fragment: paths are added to its end"
    return None


def load(path: Path) -> Catalog:
    """Reads the file.

    Raises:
        StartupError: it cannot be read, or says something that is not understood; the message says where.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise StartupError(
            f"The providers file {path} cannot be read ({error.strerror}). Set FLOWSTACK_PROVIDERS_FILE."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartupError(f"The providers file {path} is not valid TOML: {error}.") from error
    try:
        return parse(document)
    except ValueError as error:
        line = line_of(text, str(error))
        place = "" if line is None else f", line {line},"
        raise StartupError(f"The providers file {path}{place} is not valid: {error}.") from error


def parse(document: Mapping[str, Any]) -> Catalog:
    """Checks a parsed file.

    Raises:
        ValueError: a key or value does not fit; the text names it by its path.
    """
    _only(document, {"providers"}, "")
    tables = _table(document.get("providers", {}), "providers")
    return Catalog({name: _provider(name, table, f"providers.{name}") for name, table in tables.items()})


def _provider(name: str, raw: object, path: str) -> ProviderEntry:
    if not _PROVIDER_NAME.fullmatch(name):
        raise ValueError(
            f"{path}: a provider's name is 1 to 64 of a-z, 0-9, _ and -, and begins with a letter or digit"
        )
    table = _table(raw, path)
    kind = table.get("kind")
    if kind not in KINDS:
        raise ValueError(f"{path}.kind has to be one of {', '.join(KINDS)}")
    _only(table, {"kind", "models", *_KEYS_OF_KIND[kind]}, path)
    models = {
        model: _model(model, entry, f"{path}.models.{model}")
        for model, entry in _table(table.get("models", {}), f"{path}.models").items()
    }
    known: dict[str, Any] = {
        key: _typed(table[key], type_, f"{path}.{key}") for key, type_ in _PROVIDER_TYPES.items() if key in table
    }
    if kind == "bedrock":
        known["regions"] = _words(table.get("regions"), f"{path}.regions", None)
        if not known["regions"] or not all(map(_REGION.fullmatch, known["regions"])):
            raise ValueError(f"{path}.regions has to be a list of AWS regions, at least one")
        if known.get("managed_aws_credentials", "") not in ("", *AWS_SOURCES):
            raise ValueError(f"{path}.managed_aws_credentials has to be one of {', '.join(AWS_SOURCES)}")
    if known.get("base_url") and (fault := base_url_fault(known["base_url"])):
        raise ValueError(f"{path}.base_url {fault}")
    if known.get("managed_api_key_env") and not _VARIABLE.fullmatch(known["managed_api_key_env"]):
        raise ValueError(f"{path}.managed_api_key_env has to be the name of a variable")
    return ProviderEntry(name=name, kind=kind, models=models, aliases=_aliases(models, path), **known)


def _model(name: str, raw: object, path: str) -> Model:
    _check_model_name(name, path)
    table = _table(raw, path)
    _only(table, {*_MODEL_TYPES, "aliases", *_MODALITY_KEYS, *_PRICE_KEYS}, path)
    values: dict[str, Any] = {
        key: _typed(table[key], type_, f"{path}.{key}") for key, type_ in _MODEL_TYPES.items() if key in table
    }
    for key in ("aliases", *_MODALITY_KEYS):
        if key in table:
            values[key] = _words(table[key], f"{path}.{key}", None if key == "aliases" else MODALITIES)
    if values.get("reasoning") not in (None, *REASONING):
        raise ValueError(f"{path}.reasoning has to be one of {', '.join(REASONING)}")
    for alias in values.get("aliases", ()):
        _check_model_name(alias, f"{path}.aliases")
    for key, target in _PRICE_KEYS.items():
        if key in table:
            values[target] = _micros(table[key], f"{path}.{key}")
    return Model(name=name, **values)


def _check_model_name(name: str, path: str) -> None:
    if not 0 < len(name.encode()) <= MODEL_BYTES_MAX:
        raise ValueError(f"{path}: a model's name has 1 to {MODEL_BYTES_MAX} bytes")


_PROVIDER_TYPES: Final[dict[str, type]] = {
    "base_url": str,
    "managed_api_key_env": str,
    "managed_aws_credentials": str,
    "managed_without_key": bool,
    "any_model": bool,
    "max_tokens_field": str,
    "include_usage": bool,
}
_KEYS_OF_KIND: Final = {
    "echo": (),
    "openai": (
        "base_url",
        "managed_api_key_env",
        "managed_without_key",
        "any_model",
        "max_tokens_field",
        "include_usage",
    ),
    "anthropic": ("base_url", "managed_api_key_env", "managed_without_key", "any_model"),
    "bedrock": ("base_url", "managed_aws_credentials", "regions", "any_model"),
}
"""What can be said of a provider, by the protocol that it speaks."""
_MODEL_TYPES: Final[dict[str, type]] = {
    "context_tokens": int,
    "max_output_tokens": int,
    "reasoning": str,
    "sampling": bool,
}
_MODALITY_KEYS: Final = ("input_modalities", "output_modalities")
_PRICE_KEYS: Final = {
    "input_price_usd_per_million_tokens": "input_price_micros",
    "output_price_usd_per_million_tokens": "output_price_micros",
}


def _aliases(models: Mapping[str, Model], path: str) -> dict[str, str]:
    aliases: dict[str, str] = {}
    for model in models.values():
        for alias in model.aliases:
            if alias in models or alias in aliases:
                raise ValueError(f"{path}.models.{model.name}.aliases: the alias {alias} stands for two models")
            aliases[alias] = model.name
    return aliases


def _table(value: object, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{path} has to be a table")
    return value


def _only(table: Mapping[str, Any], known: set[str], path: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        place = f"{path}.{unknown[0]}" if path else unknown[0]
        raise ValueError(f"{place} is not known; known here: {', '.join(sorted(known))}")


def _typed(value: object, type_: type, path: str) -> object:
    if type(value) is not type_ or (type_ is int and value <= 0):  # type: ignore[operator]  # an int by then
        names = {str: "a text", bool: "true or false", int: "a whole number over 0"}
        raise ValueError(f"{path} has to be {names[type_]}")
    return value


def _words(value: object, path: str, allowed: tuple[str, ...] | None) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise ValueError(f"{path} has to be a list of texts")
    if allowed is not None and not set(value) <= set(allowed):
        raise ValueError(f"{path} may hold {', '.join(allowed)} only")
    return tuple(value)


def _micros(value: object, path: str) -> int:
    try:
        if not isinstance(value, str):
            raise InvalidOperation
        micros = Decimal(value) * MICROS
        if not micros.is_finite() or micros < 0 or micros != micros.to_integral_value():
            raise InvalidOperation
    except InvalidOperation:
        # A text and not a number: TOML's numbers are binary fractions, which no price is.
        raise ValueError(f'{path} has to be a decimal as text, such as "2.50"') from None
    return int(micros)
