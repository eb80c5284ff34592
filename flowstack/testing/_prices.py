"""What models cost in the fake: what its maker has said, and nothing for the simulator. What nobody says is unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final, NamedTuple

from flowstack_protos.type.v1 import type_pb2 as types

from flowstack.testing._models import resolved

if TYPE_CHECKING:
    from flowstack.testing._endings import Failed

Usd = int | float | str | Decimal
PriceTable = Mapping[tuple[str, str], tuple[Usd, Usd]]
"""Dollars for a million input tokens and for a million output tokens, by provider and model."""

PER_TOKENS: Final = 1_000_000
VERSION: Final = "fake-1"
"""Of the price table."""

_USD_MAX: Final = 1_000_000
_UNCHARGED: Final = frozenset(
    (
        types.ATTEMPT_FAILURE_UNREACHABLE,
        types.ATTEMPT_FAILURE_PROVIDER_ERROR,
        types.ATTEMPT_FAILURE_RATE_LIMITED,
        types.ATTEMPT_FAILURE_CREDENTIALS_REFUSED,
        types.ATTEMPT_FAILURE_REQUEST_REJECTED,
    )
)
"""Attempts that ended without an answer; providers charge for tokens of answers alone."""


class Rates(NamedTuple):
    """Micro-dollars for a million tokens."""

    input_micro: int
    output_micro: int

    def cost_micro(self, input_tokens: int, output_tokens: int) -> int:
        """What tokens cost, rounded half up."""
        total = input_tokens * self.input_micro + output_tokens * self.output_micro
        return (2 * total + PER_TOKENS) // (2 * PER_TOKENS)


class Prices:
    """The price table.

    Raises:
        ValueError: a key is no pair of provider and model, or a price no pair of amounts from 0 to 1,000,000 dollars.
    """

    def __init__(self, table: PriceTable) -> None:
        self._rates = {("echo", "echo-1"): Rates(0, 0)}
        for key, price in table.items():
            if not (isinstance(key, tuple) and len(key) == 2 and all(isinstance(name, str) for name in key)):
                raise ValueError(f"prices: {key!r} has to be a pair of provider and model, as ('openai', 'gpt-4o')")
            if not (isinstance(price, tuple | list) and len(price) == 2):
                raise ValueError(
                    f"prices: that of {key!r} has to be a pair, dollars for a million input and output tokens"
                )
            provider, model = key
            self._rates[provider, resolved(provider, model)] = Rates(*(_micro(key, usd) for usd in price))

    def of(self, provider: str, model: str) -> Rates | None:
        """The price of a model by its own name; None where nobody has said it."""
        return self._rates.get((provider, model))

    def session_micro(
        self,
        served: types.Candidate | None,
        failures: Sequence[Failed],
        tokens: tuple[int, int] | None,
        *,
        is_counted: bool,
    ) -> int | None:
        """What providers charge the caller for a session on credentials of its own; None where that is not known.

        Args:
            served: who answered, or was asked last; None where every attempt had failed.
            failures: the attempts that failed.
            tokens: input and output; None where an answer did not come to its end.
            is_counted: whether the session was committed.
        """
        own = [one for one in failures if one.candidate.credential_mode == types.CREDENTIAL_MODE_BYOK]
        if served is not None:
            own = [one for one in own if one.candidate != served]
        if any(one.failure not in _UNCHARGED for one in own):
            return None
        if served is None:
            return None if is_counted else 0
        rates = self.of(served.provider, served.model)
        if rates is None or tokens is None:
            return 0 if rates == (0, 0) else None
        return rates.cost_micro(*tokens)


def _micro(key: tuple[str, str], usd: Usd) -> int:
    try:
        amount = Decimal(str(usd))
        is_price = not isinstance(usd, bool) and 0 <= amount <= _USD_MAX
    except InvalidOperation:  # no number, or none that can be compared
        is_price = False
    if not is_price:
        raise ValueError(f"prices: {usd!r}, of {key!r}, has to be an amount from 0 to 1,000,000 dollars")
    return round(amount * 1_000_000)
