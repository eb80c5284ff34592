"""Settings of the quota service."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field

from services.shared.settings import CommonSettings, StartupError

SQLITE: Final = "sqlite:///"


class QuotaSettings(CommonSettings):
    """What quota reads from the environment."""

    quota_store: str | None = None
    """`sqlite:///path`; the data folder's quota.db where unset."""

    expiry_hold_seconds: float = Field(60.0, ge=0)
    """How long quota has to have served after an outage before a lease expires, so that routers can still commit."""

    def database_path(self) -> Path:
        """The SQLite file.

        Raises:
            StartupError: the setting names no SQLite file, or the data folder cannot be made.
        """
        if self.quota_store is None:
            return self.data_folder() / "quota.db"
        if not self.quota_store.startswith(SQLITE) or len(self.quota_store) == len(SQLITE):
            raise StartupError(
                "FLOWSTACK_QUOTA_STORE has to be sqlite:/// and a path, such as sqlite:///var/quota.db, "
                "or sqlite:////var/lib/flowstack/quota.db for an absolute one."
            )
        return Path(self.quota_store.removeprefix(SQLITE))
