"""Settings of the vault service."""

from __future__ import annotations

from pydantic import Field

from services.shared.settings import CommonSettings


class VaultSettings(CommonSettings):
    """What the vault reads from the environment."""

    vault_database: str = ""
    """`sqlite:///path` or `postgresql://…`; empty for `vault.db` under the data folder."""
    vault_capacity_bytes: int = Field(1024**3, gt=0)
    """How many bytes the documents of one account may take."""

    def database_url(self) -> str:
        """The database's address.

        Raises:
            StartupError: the data folder cannot be made.
        """
        return self.vault_database or f"sqlite:///{self.data_folder() / 'vault.db'}"
