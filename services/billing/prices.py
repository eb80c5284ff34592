"""The port to the price table: what a model of a provider costs at a time."""

from __future__ import annotations

from typing import Protocol

from services.billing.domain.prices import ModelPrice


class Prices(Protocol):
    """The current price table."""

    @property
    def version(self) -> str:
        """Its version; the operator's own prices and those that ship have one each, joined by `+`."""
        ...

    @property
    def price_us(self) -> int:
        """From when its prices are; 0 where that is not known."""
        ...

    def price_of(self, provider: str, model: str, at_us: int) -> ModelPrice | None:
        """The price of a provider's model at a time; None where it is not known. Fast: asked for each session."""
        ...


class NoPrices:
    """A table without prices: every cost is unknown."""

    version = ""
    price_us = 0

    def price_of(self, provider: str, model: str, at_us: int) -> ModelPrice | None:  # noqa: ARG002
        """None."""
        return None
