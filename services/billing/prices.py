"""The ports to the price table, what a model of a provider costs at a time, and to the list of models."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from services.billing.domain.prices import ModelPrice, Rates


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


class ListedModel(NamedTuple):
    """A model as the router would run it."""

    name: str
    """The provider's own, which sessions are priced by."""
    rates: Rates | None
    """What the operator's list says of its price; None where that says nothing."""


class Models(Protocol):
    """The models that the operator offers."""

    def find(self, provider: str, model: str) -> ListedModel:
        """The model of a provider by its name or an alias; the name as it is where the list does not have it."""
        ...


class NoModels:
    """No list: every name stands for itself."""

    def find(self, provider: str, model: str) -> ListedModel:  # noqa: ARG002
        """The name as it is."""
        return ListedModel(model, None)
