"""What providers charge for sessions on the caller's own credentials.

A price that is not known makes a cost that is not known, never one of 0. Prices are micro-dollars for a million tokens,
costs micro-dollars, both integers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final, NamedTuple

from services.billing.domain.ledger import CredentialMode, EventType, LedgerEntry

PER_TOKENS: Final = 1_000_000
"""A price is for this many tokens."""

_UNCHARGED_FAILURES: Final = frozenset((1, 2, 3, 4, 5))
"""Attempts that ended without an answer, by the contract's numbers: unreachable, an error of the provider's, the rate
limited, the credentials or the request refused. Providers charge for tokens of answers alone; an answer that broke off,
stalled or was abandoned may be charged."""


class Rates(NamedTuple):
    """Prices by kind of token; None where it is not known."""

    input: int | None
    output: int | None
    cached_input: int | None = None
    """Of input tokens that the provider read from its cache; None for the price of input."""
    cache_write: int | None = None
    """Of input tokens that the provider wrote to its cache; None for the price of input."""
    reasoning: int | None = None
    """Of output tokens spent on reasoning; None for the price of output."""


class Tier(NamedTuple):
    """Rates of calls whose prompts have more than so many tokens."""

    above_input_tokens: int
    rates: Rates


class ModelPrice(NamedTuple):
    """What a model costs from some time on."""

    version: str
    """The version of the price table that it stands in."""
    rates: Rates
    tiers: tuple[Tier, ...] = ()
    """By rising bounds. A tier holds for the whole call, not for the tokens beyond its bound alone."""

    def rates_at(self, input_tokens: int) -> Rates:
        """The rates of one call whose prompt has so many tokens."""
        rates = self.rates
        for tier in self.tiers:
            if input_tokens > tier.above_input_tokens:
                rates = tier.rates
        return rates


class Tokens(NamedTuple):
    """Tokens of a session, or of several at the same rates."""

    input: int
    output: int
    cached_input: int = 0
    """Of `input`."""
    cache_write: int = 0
    """Of `input`."""
    reasoning: int = 0
    """Of `output`."""


class ProviderCost(NamedTuple):
    """What providers charge for some sessions, as far as it is known."""

    known_micro: int
    unpriced_sessions: int
    """BYOK sessions whose cost is unknown and not in `known_micro`; the cost is exact where this is 0."""


_NONE_APART: Final = (0, 0, 0)
"""Of tokens that are neither cached nor of reasoning."""

PriceOf = Callable[[str, str, int], ModelPrice | None]
"""Finds the price of a provider's model at a time, in microseconds since 1970; None where it is not known."""


def cost_micro(rates: Rates, tokens: Tokens) -> int | None:
    """What tokens cost at `rates`, rounded half up.

    None where a price that they need is not known, or parts of them are said to be more than the whole: who counts
    them some other way than providers do leaves unknown what is charged.
    """
    if tokens[2:] == _NONE_APART and rates.input is not None and rates.output is not None:
        # Most sessions; the long way takes four times as long.
        return _rounded(tokens.input * rates.input + tokens.output * rates.output)
    fresh = tokens.input - tokens.cached_input - tokens.cache_write
    said = tokens.output - tokens.reasoning
    if fresh < 0 or said < 0:
        return None
    total = 0
    for count, own, general in (
        (fresh, rates.input, None),
        (tokens.cached_input, rates.cached_input, rates.input),
        (tokens.cache_write, rates.cache_write, rates.input),
        (said, rates.output, None),
        (tokens.reasoning, rates.reasoning, rates.output),
    ):
        if count > 0:
            price = general if own is None else own
            if price is None:
                return None
            total += count * price
    return _rounded(total)


def _rounded(total: int) -> int:
    return (2 * total + PER_TOKENS) // (2 * PER_TOKENS)


def stamped(entry: LedgerEntry, price_of: PriceOf) -> LedgerEntry:
    """The entry with what its provider charges for it, and by which version of the price table.

    Managed sessions get no cost: it is part of the fee. Prices are those of the time of the reservation. Tokens that a
    provider does not report apart count as ordinary ones. Estimated tokens are priced like others.
    """
    if entry.credential_mode != CredentialMode.BYOK:
        return entry
    if not entry.served_provider:
        return _with_cost(entry, 0, "") if _was_uncharged(entry) else entry
    price = price_of(entry.served_provider, entry.served_model, entry.reserve_us)
    if price is None or entry.input_tokens is None or entry.output_tokens is None:
        return entry
    rates = _rates_for(price, entry)
    # A list of several candidates or attempts has this in it: only then an earlier one may have been charged too.
    if rates is None or ("],[" in entry.detail and not _earlier_were_uncharged(entry)):
        return entry
    tokens = Tokens(
        entry.input_tokens,
        entry.output_tokens,
        entry.cached_input_tokens or 0,
        entry.cache_write_tokens or 0,
        entry.reasoning_tokens or 0,
    )
    cost = cost_micro(rates, tokens)
    return entry if cost is None else _with_cost(entry, cost, price.version)


def _with_cost(entry: LedgerEntry, cost: int, version: str) -> LedgerEntry:
    # Half the time that _replace takes: it is done for every session. The two are the last fields.
    return LedgerEntry._make((*entry[:-2], cost, version))


def _rates_for(price: ModelPrice, entry: LedgerEntry) -> Rates | None:
    """The rates of the entry's tier; None where its calls may lie in different ones."""
    rates = price.rates_at(entry.input_tokens or 0)
    # The tokens are those of all calls of a tool loop, and a tier is decided for each call.
    return None if rates is not price.rates and '"tool_call_count"' in entry.detail else rates


def _was_uncharged(entry: LedgerEntry) -> bool:
    """Whether a session that no provider served is known to have cost nothing."""
    if entry.event != EventType.RELEASED:
        # One that expired lost its router, and with it what that knew; one that was counted has run.
        return False
    return all(failure in _UNCHARGED_FAILURES for failure in _byok_failures(entry))


def _earlier_were_uncharged(entry: LedgerEntry) -> bool:
    return all(failure in _UNCHARGED_FAILURES for failure in _byok_failures(entry)[:-1])


def _byok_failures(entry: LedgerEntry) -> list[int]:
    """How the attempts on the caller's credentials ended, in order; 0 for the one that served."""
    detail = json.loads(entry.detail)
    managed = {(name, model) for name, model, mode in detail.get("candidates", ()) if mode == CredentialMode.MANAGED}
    return [failure for name, model, failure, *_ in detail.get("attempts", ()) if (name, model) not in managed]
