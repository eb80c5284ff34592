"""What a model can do, as far as the operator's file says, and the refusal of what it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from services.router.domain.request import ImagePart, Prompt
from services.shared.errors import invalid_request


class Reasoning(Enum):
    """How a model is told how much to reason."""

    NONE = "none"
    """It does not reason, or cannot be told."""
    EFFORT = "effort"
    """By OpenAI's `reasoning_effort`."""
    BUDGET = "budget"
    """By Anthropic's `thinking.budget_tokens`: Claude 3.7 to 4.5."""
    ADAPTIVE = "adaptive"
    """By Anthropic's `output_config.effort` with adaptive thinking: Claude 4.6 and later."""


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """One model. What is None is unknown, and left for the provider to judge."""

    max_output_tokens: int | None = None
    images: bool | None = None
    reasoning: Reasoning | None = None
    sampling: bool = True
    """Whether it takes temperature and top_p. Claude Opus 4.7 and the models after it refuse them."""


UNKNOWN: Final = ModelTraits()


def check(prompt: Prompt, traits: ModelTraits, reasoning: Reasoning) -> None:
    """Refuses what the model cannot do.

    Args:
        prompt: What is asked.
        traits: What the model can do.
        reasoning: `traits.reasoning`, or what holds where that is unknown.

    Raises:
        FlowStackError: INVALID_REQUEST, naming the field.
    """
    limit = traits.max_output_tokens
    if prompt.max_output_tokens is not None and limit is not None and prompt.max_output_tokens > limit:
        raise invalid_request("max_output_tokens", f"this model puts out {limit} tokens at most")
    if prompt.reasoning_effort is not None and reasoning is Reasoning.NONE:
        raise invalid_request("reasoning_effort", "this model cannot be told how much to reason; leave it unset")
    if not traits.sampling:
        for field, value in (("temperature", prompt.temperature), ("top_p", prompt.top_p)):
            if value is not None:
                raise invalid_request(field, "this model does not take it; leave it unset")
    if traits.images is False:
        for index, message in enumerate(prompt.messages):
            for position, part in enumerate(message.parts):
                if isinstance(part, ImagePart):
                    raise invalid_request(f"messages[{index}].content[{position}].image", "this model takes no images")


def output_limit(prompt: Prompt, traits: ModelTraits) -> int | None:
    """The most output tokens to ask for: what the caller and the plan allow, and never more than the model has.

    A plan's cap can lie over what a model puts out, which providers refuse; what its caller asks for cannot, see check.
    """
    limits = [limit for limit in (prompt.max_output_tokens, traits.max_output_tokens) if limit is not None]
    return min(limits) if limits and prompt.max_output_tokens is not None else None
