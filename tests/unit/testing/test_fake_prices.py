"""What sessions cost in the fake: by the prices that a test gives it, and otherwise unknown."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from flowstack import Agent, BudgetExceededError
from flowstack.testing import FakeFlowStack

OPENAI: dict[str, Any] = {"provider": "openai", "model": "gpt-4o", "byok": {"api_key": "sk-own"}}
PRICES = {("openai", "gpt-4o"): (2.50, "10"), ("anthropic", "claude-3-opus"): (Decimal(5), 25)}
"""One by its own name, one by an alias."""


def costs(agent: Agent) -> tuple[float, int]:
    """What the period costs beside its fee, and how many sessions cost nobody knows what."""
    usage = agent.get_usage()
    return round(usage.estimated_monthly_cost - usage.current_charges, 6), usage.unpriced_sessions


def test_a_session_costs_what_its_tokens_do() -> None:
    with FakeFlowStack(prices=PRICES) as fake, fake.agent(**OPENAI) as agent:
        reply = agent.chat("Hello")
        expected = (reply.usage.input_tokens * 2.5 + reply.usage.output_tokens * 10) / 1e6
        assert expected > 0
        assert costs(agent) == (round(expected, 6), 0)


def test_what_nobody_said_is_unknown_and_the_simulator_is_free() -> None:
    with FakeFlowStack() as fake, fake.agent(**OPENAI) as agent:
        agent.chat("Hello")
        assert costs(agent) == (0, 1)
        agent.set_provider("echo")
        agent.chat("Hello")
        assert costs(agent) == (0, 1)


def test_managed_sessions_are_part_of_the_fee() -> None:
    model = "claude-3-opus"
    bedrock = {"provider": "bedrock", "model": model}
    with FakeFlowStack(prices={("bedrock", model): (5, 25)}) as fake, fake.agent(**bedrock) as agent:
        agent.chat("Hello")
        assert costs(agent) == (0, 0)


def test_an_answer_that_was_cut_off_has_no_known_cost() -> None:
    with FakeFlowStack(prices=PRICES) as fake, fake.agent(**OPENAI) as agent:
        fake.reply("one two three", delay_s=0.01)
        with agent.stream("Hello") as stream:
            next(iter(stream.text))
        while agent.get_usage().sessions_reserved:
            pass
        assert costs(agent) == (0, 1)


def test_estimates_know_aliases() -> None:
    with FakeFlowStack(prices=PRICES) as fake, fake.agent() as agent:
        found = agent.estimate_cost(100, "anthropic", "claude-opus-4-5", input_tokens=750, output_tokens=250)
        expected = 100 * (750 * 5 + 250 * 25) / 1e6
        assert {one["provider_cost"] for one in found if not one["managed"]} == {expected}


def test_a_budget_counts_them() -> None:
    with FakeFlowStack(prices={("openai", "gpt-4o"): (1_000_000, 1_000_000)}) as fake, fake.agent(**OPENAI) as agent:
        agent.budget.set(51, action="block")
        agent.chat("Hello")
        with pytest.raises(BudgetExceededError):
            agent.chat("Hello")


@pytest.mark.parametrize(
    ("prices", "says"),
    [
        ({"gpt-4o": (1, 2)}, r"'gpt-4o' has to be a pair of provider and model, as \('openai', 'gpt-4o'\)"),
        ({("openai", "gpt-4o"): 3}, "has to be a pair, dollars for a million input and output tokens"),
        ({("openai", "gpt-4o"): (1, -2)}, "-2, of .* has to be an amount from 0 to 1,000,000 dollars"),
        ({("openai", "gpt-4o"): (float("nan"), 2)}, "nan, of .* has to be an amount"),
        ({("openai", "gpt-4o"): ("cheap", 2)}, "'cheap', of .* has to be an amount"),
        ({("openai", "gpt-4o"): (True, 2)}, "True, of .* has to be an amount"),
    ],
)
def test_prices_that_cannot_be_are_refused(prices: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FakeFlowStack(prices=prices)
