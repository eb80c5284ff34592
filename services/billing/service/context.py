"""What every use case works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.billing.domain.catalogue import Catalogue
from services.billing.domain.ids import Randomness
from services.billing.domain.invoices import PaymentTerms
from services.billing.domain.paging import PageTokens
from services.billing.prices import Models, NoModels, NoPrices, Prices
from services.billing.quota import Quota
from services.billing.service.signals import Signals
from services.billing.store import Store
from services.shared.clock import Clock


@dataclass(frozen=True, slots=True)
class Context:
    """The store, the quota service, the catalogue, and the injected sources of time and randomness."""

    store: Store
    quota: Quota
    catalogue: Catalogue
    page_tokens: PageTokens
    clock: Clock
    randomness: Randomness
    payment_terms: PaymentTerms = PaymentTerms()  # noqa: RUF009  # immutable
    has_payment_provider: bool = False
    """Whether invoices go to a payment provider."""
    prices: Prices = NoPrices()  # noqa: RUF009  # immutable
    """What providers charge for sessions on the caller's credentials."""
    models: Models = NoModels()  # noqa: RUF009  # immutable
    """What models are called."""
    signals: Signals = field(default_factory=Signals)
    """What a committed transaction tells the rest of the process."""
