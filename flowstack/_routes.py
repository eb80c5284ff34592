"""Which provider and model an agent asks, and on whose key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flowstack_protos.router.v1 import router_service_pb2 as pb

from flowstack._client import Call, Steps
from flowstack._errors import ConfigurationError
from flowstack._methods import RouterService
from flowstack._requests import build
from flowstack._secret import Secret

DEFAULT_MODEL: Final = "default"
"""The alias by which the operator's file marks what a provider's callers get who name no model."""
SIMULATOR: Final = "echo"

_SPELLINGS: Final = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
_FIELDS: Final = {
    "openai": ({"api_key"}, {"organization", "project"}),
    "anthropic": ({"api_key"}, set[str]()),
    "bedrock": ({"access_key_id", "secret_access_key"}, {"session_token", "region"}),
}

_MESSAGES: Final[Mapping[str, Any]] = {
    "openai": pb.OpenAiCredentials,
    "anthropic": pb.AnthropicCredentials,
    "bedrock": pb.BedrockCredentials,
}


@dataclass(frozen=True, slots=True)
class Route:
    """A choice of provider, model and credentials. Immutable: a chat goes on with the one that it began with.

    Attributes:
        provider: empty for the operator's default.
        model: the model or an alias; DEFAULT_MODEL for the operator's default of that provider.
        byok: the caller's own credentials; never shown.
    """

    provider: str = ""
    model: str = DEFAULT_MODEL
    byok: pb.ByokCredentials | None = field(default=None, repr=False)


def credentials(provider: str, byok: Secret[Any]) -> pb.ByokCredentials | None:
    """Checks `byok` for a provider.

    Args:
        provider: whose credentials. Any name but `anthropic` and `bedrock` takes OpenAI's form, as compatible servers
            do.
        byok: `{"api_key": …}`, or `{"access_key_id": …, "secret_access_key": …}` for Bedrock; a bare key is the
            former; None for managed access.

    Raises:
        ConfigurationError: fields that are missing, unknown or no text. The text never holds a value.
    """
    if byok.reveal() is None:
        return None
    if not provider:
        raise ConfigurationError("byok belongs to a provider: name it, as in provider='openai'.")
    fault = _fault_of(provider, byok.reveal())
    if fault:
        raise ConfigurationError(f"byok for {provider} {fault}")
    kind = credentials_kind(provider)
    return pb.ByokCredentials(**{kind: _MESSAGES[kind](**_fields(byok.reveal()))})


def _fields(byok: Mapping[str, Any] | str) -> dict[str, Any]:
    named = {"api_key": byok} if isinstance(byok, str) else byok
    return {_SPELLINGS.get(str(name), str(name)): value for name, value in named.items() if value is not None}


def _fault_of(provider: str, byok: Any) -> str:
    """What is wrong with credentials, in words without a value; raises nothing, for the values are its variables."""
    if not isinstance(byok, Mapping | str):
        return f"has to be a dict or a key, not {type(byok).__name__}."
    given = _fields(byok)
    needed, optional = _FIELDS[credentials_kind(provider)]
    missing, unknown = needed - given.keys(), given.keys() - needed - optional
    if missing or unknown:
        what = f"lacks {', '.join(sorted(missing))}" if missing else f"has an unknown {', '.join(sorted(unknown))}"
        takes = f"{what}. It takes {', '.join(sorted(needed))}"
        return takes + (f" and may have {', '.join(sorted(optional))}." if optional else ".")
    if not all(isinstance(one, str) and one and one.isascii() and one.isprintable() for one in given.values()):
        return "has a value that is empty or no plain text."
    return ""


def credentials_kind(provider: str) -> str:
    """Which of ByokCredentials' fields a provider takes."""
    return provider if provider in _FIELDS else "openai"


def list_models(provider: str = "") -> Steps[list[pb.Model]]:
    """Every model of the operator's, or of one provider."""
    models: list[pb.Model] = []
    token = ""
    while True:
        request = build(pb.ListModelsRequest, provider=provider, page_size=1000, page_token=token)
        page: pb.ListModelsResponse = yield Call(RouterService.ListModels, request)
        models.extend(page.models)
        token = page.next_page_token
        if not token:
            return models


def default_provider() -> Steps[str]:
    """The operator's default for this caller.

    The first provider, by name, that the caller's plan includes and that has a default model; else the simulator where
    the operator offers it.

    Raises:
        ConfigurationError: neither; the text names the providers that there are.
        FlowStackError: whatever the router answered.
    """
    models = yield from list_models()
    managed = [m.provider for m in models if m.managed_available and DEFAULT_MODEL in (m.model, *m.aliases)]
    if managed:
        return managed[0]
    providers = sorted({model.provider for model in models})
    if SIMULATOR in providers:
        return SIMULATOR
    raise ConfigurationError(
        "Your plan includes no provider. Name one and bring your own key, as in provider='openai', "
        f"byok={{'api_key': …}}. Providers: {', '.join(providers) or 'none'}."
    )
