"""The port to billing: which accounts are deleted."""

from __future__ import annotations

from typing import Protocol


class AccountDirectory(Protocol):
    """Knows accounts."""

    async def purge_us(self, account_id: str) -> int | None:
        """When a deleted account's documents are to be purged, in microseconds since 1970.

        None for an account that is not deleted, or that billing does not know.

        Raises:
            FlowStackError: BILLING_UNAVAILABLE.
        """
        ...
