"""The models that the fake has, by provider, as they ship with FlowStack."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from flowstack.testing._errors import FakeError

MODELS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "anthropic": {
            "claude-haiku-5-5": (),
            "claude-opus-5-5": (),
            "claude-sonnet-5-5": (),
            "claude-opus-4-5-20251101": ("claude-opus-4-5", "claude-3-opus"),
            "claude-sonnet-4-5-20250929": ("claude-sonnet-4-5", "claude-3-sonnet", "default"),
        },
        "bedrock": {
            "global.anthropic.claude-opus-4-5-20251101-v1:0": ("claude-opus-4-5", "claude-3-opus"),
            "global.anthropic.claude-sonnet-4-5-20250929-v1:0": ("claude-sonnet-4-5", "claude-3-sonnet", "default"),
            "global.anthropic.claude-sonnet-5-5": ("claude-sonnet-5-5",),
        },
        "echo": {"echo-1": ("default",)},
        "openai": {
            "gpt-3.5-turbo": (),
            "gpt-4": (),
            "gpt-4-turbo": (),
            "gpt-4.1": (),
            "gpt-4.1-mini": (),
            "gpt-4o": ("default",),
            "gpt-4o-mini": (),
            "gpt-5": (),
            "gpt-5-mini": (),
        },
    }
)
"""The models by provider, with their aliases."""


def resolved(provider: str, model: str) -> str:
    """The provider's own name of a model; the name as it is where the fake does not have it."""
    for name, aliases in MODELS.get(provider, {}).items():
        if model in aliases:
            return name
    return model


def model_of(provider: str, model: str) -> str:
    """The provider's own name of a model.

    Raises:
        FakeError: MODEL_NOT_FOUND.
    """
    models = MODELS.get(provider)
    if models is None:
        raise unknown_provider(provider)
    name = resolved(provider, model)
    if name in models:
        return name
    near = _near(model, [*models, *(alias for aliases in models.values() for alias in aliases)])
    raise FakeError(
        "MODEL_NOT_FOUND",
        f"The provider {provider} has no such model here.{near} ListModels names those that it has.",
        metadata={"provider": provider},
    )


def unknown_provider(provider: str) -> FakeError:
    """What a call is answered with that names such a provider."""
    return FakeError(
        "MODEL_NOT_FOUND",
        f"That provider is not configured here.{_near(provider, list(MODELS))} "
        f"Configured: {', '.join(sorted(MODELS))}.",
    )


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 3)
    return f" Did you mean {' or '.join(near)}?" if near else ""
