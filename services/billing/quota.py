"""The port to quota: what billing asks of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Protocol

from services.billing.domain.entitlements import Entitlement
from services.billing.domain.ledger import EventBatch
from services.billing.domain.usage import QuotaReading


class Quota(Protocol):
    """The quota service. Every method raises FlowStackError QUOTA_UNAVAILABLE where it does not answer."""

    async def put_entitlement(self, entitlement: Entitlement, timeout_s: float) -> None:
        """Sets an account's entitlement; waits for a quota that is starting, up to `timeout_s`.

        Raises:
            FlowStackError: STALE_REVISION, with `stored_revision` in the metadata; INVALID_REQUEST.
        """

    async def get_quota(self, account_id: str, timeout_s: float) -> QuotaReading:
        """Reads an account's counts and refusal at once.

        Raises:
            FlowStackError: ENTITLEMENT_MISSING.
        """
        ...

    def watch_quota(self, account_id: str) -> AsyncGenerator[QuotaReading, None]:
        """An account's counts and refusal at once and after each change, until the connection ends.

        Raises:
            FlowStackError: ENTITLEMENT_MISSING.
        """
        ...

    def read_session_events(self, after: Mapping[int, str], *, follow: bool = True) -> AsyncIterator[EventBatch]:
        """Reads the session events of partitions, each from after its cursor.

        Args:
            after: the cursors; empty from the oldest event on.
            follow: go on with new ones until the connection ends; otherwise up to those that there are now.

        Raises:
            FlowStackError: INVALID_REQUEST, with `store_epoch` in the metadata where quota's store was replaced.
        """
        ...

    async def acknowledge(self, cursors: Mapping[int, str]) -> None:
        """Says that everything up to these cursors is stored for good."""
