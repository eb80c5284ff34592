"""Settings of the billing service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from services.billing.domain.invoices import DAY_US, PaymentTerms
from services.billing.domain.targets import Network, networks_of
from services.shared.settings import CommonSettings, SecretSetting


def _networks(text: str) -> str:
    networks_of(text)
    return text


class BillingSettings(CommonSettings):
    """What billing reads from the environment."""

    billing_database: str = ""
    """`sqlite:///path` or `postgresql://…`; empty for `billing.db` under the data folder."""
    billing_catalogue_file: Path | None = None
    """Another catalogue of plans and offers than the one that ships."""
    billing_prices_file: Path | None = None
    """Prices of providers that stand before those that ship, see `adapters/price_table.py`."""
    providers_file: Path = Path("deploy/providers.toml")
    """The router's, for the names and aliases of models in estimates; need not be there."""
    billing_lease_seconds: float = Field(10.0, gt=0)
    """How long a replica that has fallen silent keeps the partitions of quota's events that it reads."""

    payment_term_days: int = Field(14, ge=0, le=365)
    """From an invoice's issue to its due time."""
    payment_grace_days: int = Field(14, ge=0, le=365)
    """From the due time until new sessions are refused with PAYMENT_OVERDUE."""
    invoice_issuer: str = "FlowStack"
    """Who issues invoices, as they print it: the name, then the address, lines separated by `|`."""
    stripe_api_key: SecretSetting | None = None
    """Sends invoices to Stripe."""
    stripe_base_url: str = ""
    """Another server that speaks Stripe's API; empty for Stripe's own."""

    webhook_allowed_networks: Annotated[str, AfterValidator(_networks)] = ""
    """Networks that webhooks may be sent to beside public addresses, in CIDR notation, comma-separated."""
    webhook_allow_http: bool = False
    """Takes webhooks' addresses without TLS too."""

    def payment_terms(self) -> PaymentTerms:
        """How long customers have to pay."""
        return PaymentTerms(self.payment_term_days * DAY_US, self.payment_grace_days * DAY_US)

    def webhook_networks(self) -> tuple[Network, ...]:
        """Networks that webhooks may be sent to beside public addresses."""
        return networks_of(self.webhook_allowed_networks)

    def database_url(self) -> str:
        """The database's address.

        Raises:
            StartupError: the data folder cannot be made.
        """
        return self.billing_database or f"sqlite:///{self.data_folder() / 'billing.db'}"
