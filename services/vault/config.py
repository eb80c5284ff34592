"""Settings of the vault service."""

from __future__ import annotations

from services.shared.settings import CommonSettings


class VaultSettings(CommonSettings):
    """What the vault reads from the environment."""
