"""Which provider and model an agent asks, and on whose key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flowstack_protos.router.v1 import router_service_pb2 as pb

from flowstack._client import Call, Steps
from flowstack._errors import ConfigurationError
from flowstack._methods import RouterService

DEFAULT_MODEL: Final = "default"
"""The alias by which the operator's file marks what a provider's callers get who name no model."""
SIMULATOR: Final = "echo"

_SPELLINGS: Final = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
_FIELDS: Final = {
    "openai": ({"api_key"}, {"organization", "project"}),
    "anthropic": ({"api_key"}, set[str]()),
    "bedrock": ({"access_key_id", "secret_access_key"}, {"session_token", "region"}),
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


def credentials(provider: str, byok: Mapping[str, Any] | str | None) -> pb.ByokCredentials | None:
    """Checks `byok` for a provider.

    Args:
        provider: whose credentials. Any name but `anthropic` and `bedrock` takes OpenAI's form, as compatible servers
            do.
        byok: `{"api_key": …}`, or `{"access_key_id": …, "secret_access_key": …}` for Bedrock; a bare key is the
            former; None for managed access.

    Raises:
        ConfigurationError: fields that are missing, unknown or no text. The text never holds a value.
    """
    if byok is None:
        return None
    if not provider:
        raise ConfigurationError("byok belongs to a provider: name it, as in provider='openai'.")
    kind = credentials_kind(provider)
    if isinstance(byok, str):
        byok = {"api_key": byok}
    given = {_SPELLINGS.get(str(name), str(name)): value for name, value in byok.items() if value is not None}
    needed, optional = _FIELDS[kind]
    missing, unknown = needed - given.keys(), given.keys() - needed - optional
    if missing or unknown:
        what = f"lacks {', '.join(sorted(missing))}" if missing else f"has an unknown {', '.join(sorted(unknown))}"
        raise ConfigurationError(
            f"byok for {provider} {what}. It takes {', '.join(sorted(needed))}"
            + (f" and may have {', '.join(sorted(optional))}." if optional else ".")
        )
    if not all(
        isinstance(value, str) and value and value.isascii() and value.isprintable() for value in given.values()
    ):
        raise ConfigurationError(f"byok for {provider} has a value that is empty or no plain text.")
    if kind == "openai":
        return pb.ByokCredentials(openai=pb.OpenAiCredentials(**given))
    if kind == "anthropic":
        return pb.ByokCredentials(anthropic=pb.AnthropicCredentials(**given))
    return pb.ByokCredentials(bedrock=pb.BedrockCredentials(**given))


def credentials_kind(provider: str) -> str:
    """Which of ByokCredentials' fields a provider takes."""
    return provider if provider in _FIELDS else "openai"


def list_models(provider: str = "") -> Steps[list[pb.Model]]:
    """Every model of the operator's, or of one provider."""
    models: list[pb.Model] = []
    token = ""
    while True:
        request = pb.ListModelsRequest(provider=provider, page_size=1000, page_token=token)
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
