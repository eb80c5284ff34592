"""Settings of the billing service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from services.shared.settings import CommonSettings


class BillingSettings(CommonSettings):
    """What billing reads from the environment."""

    billing_database: str = ""
    """`sqlite:///path` or `postgresql://…`; empty for `billing.db` under the data folder."""
    billing_catalogue_file: Path | None = None
    """Another catalogue of plans and offers than the one that ships."""
    billing_lease_seconds: float = Field(10.0, gt=0)
    """How long a replica that has fallen silent keeps the partitions of quota's events that it reads."""

    def database_url(self) -> str:
        """The database's address.

        Raises:
            StartupError: the data folder cannot be made.
        """
        return self.billing_database or f"sqlite:///{self.data_folder() / 'billing.db'}"
