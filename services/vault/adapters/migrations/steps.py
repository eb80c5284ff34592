"""The history of the vault's schema, and whose database it is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.shared.database.connect import Owner
from services.shared.database.migrations import Migrations
from services.shared.errors import Reason

OWNER: Final = Owner("vault", "FLOWSTACK_VAULT_DATABASE", Reason.VAULT_UNAVAILABLE, "repeat it with if_version")

MIGRATIONS: Final = Migrations(OWNER, Path(__file__).parent)
