"""The price table: the operator's file on top of the prices that the package genai-prices publishes.

The operator's file, in TOML:

    version = "acme-7"                      # is stamped on every cost
    price_time = 2026-10-01T00:00:00Z       # from when its prices are; may be left out

    [[prices]]
    provider = "openai"
    model = "gpt-4o-mini"                   # the provider's own name, no alias; "gpt-4o*" takes in all that begin so
    start_time = 2026-06-01T00:00:00Z       # may be left out: since ever
    input_usd_per_million_tokens = "0.15"
    output_usd_per_million_tokens = "0.60"
    cached_input_usd_per_million_tokens = "0.075"   # this and cache_write_… may be left out: as input;
                                                    # reasoning_… likewise: as output
    [[prices.tiers]]
    above_input_tokens = 200000
    input_usd_per_million_tokens = "0.30"
    output_usd_per_million_tokens = "1.20"

At a time the newest price that has begun holds: of the model's own ones, else of the longest pattern that takes it in,
else of those that ship. A tier replaces the prices that it names; the others hold in it too, as they do in
genai-prices, where a price without tiers stands beside one with them.
"""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from genai_prices import __version__ as seed_version
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ConditionalPrice, StartDateConstraint, TieredPrices
from genai_prices.types import ModelPrice as SeedPrice

from services.billing.domain.prices import ModelPrice, Rates, Tier
from services.shared.periods import us_from_time
from services.shared.settings import StartupError

SEED_READ: Final = {"0.2.3": datetime(2026, 11, 24, tzinfo=UTC)}
"""When the prices of a version of genai-prices were current, at the latest."""

SEED_PROVIDERS: Final = {"openai": "openai", "anthropic": "anthropic", "bedrock": "aws"}
"""What providers are called in genai-prices. Others are an operator's own, whose prices only the operator knows."""

FREE_OF_CHARGE: Final = "echo"
"""The simulator: nobody charges for it, so that its price is known, and is 0."""

CACHED_MODELS_MAX: Final = 10_000
"""So many models are remembered: names come from callers where a provider takes any."""

_Usd = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})?$")]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class _Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    input_usd_per_million_tokens: _Usd
    output_usd_per_million_tokens: _Usd
    cached_input_usd_per_million_tokens: _Usd | None = None
    cache_write_usd_per_million_tokens: _Usd | None = None
    reasoning_usd_per_million_tokens: _Usd | None = None

    def to_rates(self) -> Rates:
        return Rates(
            _micro(self.input_usd_per_million_tokens),
            _micro(self.output_usd_per_million_tokens),
            _micro(self.cached_input_usd_per_million_tokens),
            _micro(self.cache_write_usd_per_million_tokens),
            _micro(self.reasoning_usd_per_million_tokens),
        )


class _Tier(_Rates, frozen=True, forbid_unknown_fields=True, kw_only=True):
    above_input_tokens: Annotated[int, msgspec.Meta(ge=1)]


class _Price(_Rates, frozen=True, forbid_unknown_fields=True, kw_only=True):
    provider: _Name
    model: _Name
    start_time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    tiers: tuple[_Tier, ...] = ()

    @property
    def start_us(self) -> int:
        return us_from_time(self.start_time) if self.start_time else 0


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    price_time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    prices: tuple[_Price, ...] = ()


class _Dated(NamedTuple):
    start_us: int
    price: ModelPrice


class PriceTable:
    """Prices by provider and model: the operator's own first, then those of genai-prices."""

    def __init__(self, own: _File | None = None) -> None:
        self._own = own
        self._seed = {provider.id: provider for provider in get_snapshot().providers}
        self._seed_version = f"genai-prices-{seed_version}"
        self._known: dict[tuple[str, str], tuple[_Dated, ...]] = {}
        self.version = "+".join((*([own.version] if own else []), self._seed_version))
        read = own.price_time if own and own.price_time else SEED_READ.get(seed_version)
        self.price_us = us_from_time(read) if read else 0

    def price_of(self, provider: str, model: str, at_us: int) -> ModelPrice | None:
        """The price of a provider's model at a time; None where it is not known."""
        key = (provider, model)
        dated = self._known.get(key)
        if dated is None:
            if len(self._known) >= CACHED_MODELS_MAX:
                self._known.clear()
            dated = self._known[key] = (*self._find_own(provider, model), *self._find_seed(provider, model))
        for start_us, price in dated:
            if start_us <= at_us:
                return price
        return None

    def _find_own(self, provider: str, model: str) -> list[_Dated]:
        """The operator's prices, so that the first one that has begun is in force."""
        if self._own is None:
            return []
        own = [price for price in self._own.prices if price.provider == provider and _matches(price.model, model)]
        # A model that is named stands before one that a pattern takes in; of the same name the newest comes first.
        own.sort(key=lambda price: (price.model.endswith("*"), -len(price.model), -price.start_us))
        return [_from_file(price, self._own.version) for price in own]

    def _find_seed(self, provider: str, model: str) -> list[_Dated]:
        """The prices that ship, likewise."""
        if provider == FREE_OF_CHARGE:
            return [_Dated(0, ModelPrice(self._seed_version, Rates(0, 0)))]
        listed = self._seed.get(SEED_PROVIDERS.get(provider, ""))
        info = listed.find_model(model) if listed else None
        if info is None:
            return []
        prices = info.prices if isinstance(info.prices, list) else [ConditionalPrice(prices=info.prices)]
        return sorted(_from_seed(prices, self._seed_version), key=lambda item: -item.start_us)


def load_prices(path: Path | None = None) -> PriceTable:
    """The price table with the operator's file on top, where there is one.

    Raises:
        StartupError: the file cannot be read, or is not a price table; the message says where.
    """
    if path is None:
        return PriceTable()
    try:
        with path.open("rb") as file:
            own = msgspec.convert(tomllib.load(file), type=_File)
    except OSError as error:
        raise StartupError(
            f"The price table {path} cannot be read ({error.strerror}). Set FLOWSTACK_BILLING_PRICES_FILE."
        ) from error
    except (msgspec.ValidationError, tomllib.TOMLDecodeError) as error:
        raise StartupError(f"The price table {path} is not valid: {error}. Correct it and start again.") from error
    if problem := _told_twice(own.prices):
        raise StartupError(f"The price table {path} is not valid: {problem}. Keep one of the two and start again.")
    return PriceTable(own)


def _told_twice(prices: tuple[_Price, ...]) -> str:
    """What has two prices, and where; empty where nothing has."""
    first: dict[tuple[str, str, int], int] = {}
    for place, price in enumerate(prices):
        before = first.setdefault((price.provider, price.model, price.start_us), place)
        if before != place:
            since = f"from {price.start_time.astimezone(UTC)} on" if price.start_time else "without a start_time"
            return f"prices[{place}]: {price.provider} {price.model} has a price {since} in prices[{before}] already"
        bounds = [tier.above_input_tokens for tier in price.tiers]
        for number, bound in enumerate(bounds):
            if bound in bounds[:number]:
                return f"prices[{place}].tiers[{number}]: there is a tier above {bound} input tokens already"
    return ""


def _matches(pattern: str, model: str) -> bool:
    return model.startswith(pattern[:-1]) if pattern.endswith("*") else model == pattern


def _from_file(price: _Price, version: str) -> _Dated:
    rates = price.to_rates()
    tiers = [
        Tier(
            tier.above_input_tokens,
            Rates(*(base if own is None else own for own, base in zip(tier.to_rates(), rates, strict=True))),
        )
        for tier in sorted(price.tiers, key=lambda tier: tier.above_input_tokens)
    ]
    return _Dated(price.start_us, ModelPrice(version, rates, tuple(tiers)))


def _from_seed(prices: list[ConditionalPrice], version: str) -> list[_Dated]:
    dated = []
    for conditional in prices:
        constraint = conditional.constraint
        if constraint is None:
            start_us = 0
        elif isinstance(constraint, StartDateConstraint):
            start_us = us_from_time(datetime.combine(constraint.start_date, datetime.min.time(), UTC))
        else:
            # By the time of day: a session is long enough to lie in both, so that its price is not known.
            return []
        dated.append(_Dated(start_us, _price_from_seed(conditional.prices, version)))
    return dated


def _price_from_seed(price: SeedPrice, version: str) -> ModelPrice:
    fields = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "output_reasoning_mtok")
    # Of a key that the package does not know it raises AttributeError.
    found: list[Any] = [getattr(price, field, None) for field in fields]
    bounds = sorted({tier.start for value in found if isinstance(value, TieredPrices) for tier in value.tiers})
    return ModelPrice(
        version,
        Rates(*(_micro(_seed_value(value, 0)) for value in found)),
        tuple(Tier(bound, Rates(*(_micro(_seed_value(value, bound + 1)) for value in found))) for bound in bounds),
    )


def _seed_value(value: Decimal | TieredPrices | None, input_tokens: int) -> Decimal | None:
    if not isinstance(value, TieredPrices):
        return value
    begun = [tier.price for tier in value.tiers if input_tokens > tier.start]
    return begun[-1] if begun else value.base


def _micro(usd: Decimal | str | None) -> int | None:
    return None if usd is None else round(Decimal(usd) * 1_000_000)
