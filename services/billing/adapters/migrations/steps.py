"""The history of billing's schema, and whose database it is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.shared.database.connect import Owner
from services.shared.database.migrations import Migrations
from services.shared.errors import Reason

OWNER: Final = Owner(
    "billing", "FLOWSTACK_BILLING_DATABASE", Reason.BILLING_UNAVAILABLE, "repeat it with its request_id"
)

MIGRATIONS: Final = Migrations(OWNER, Path(__file__).parent)
