"""The ports to webhooks' receivers, and to what keeps their addresses and secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from services.billing.domain.webhooks import AttemptResult, WebhookFormat
from services.shared.secret import Secret


class WebhookSender(Protocol):
    """Posts to addresses that customers name, and to no other; one account's keep no other's waiting."""

    async def check(self, account_id: str, url: str, form: WebhookFormat) -> str:
        """Checks an address as far as that can be done beforehand; answers it as it may be shown.

        Raises:
            FlowStackError: INVALID_REQUEST: the operator does not allow it.
        """
        ...

    async def post(self, account_id: str, url: Secret, headers: Mapping[str, str], body: str) -> AttemptResult:
        """Posts JSON once, in bounded time."""
        ...


class Sealer(Protocol):
    """Keeps what has to be read again from whoever has the database alone."""

    def seal(self, text: str, place: str) -> bytes:
        """The text, unreadable without the key; good for `place` alone."""
        ...

    def open(self, sealed: bytes, place: str) -> Secret:
        """The text again.

        Raises:
            SealError: it was sealed with another key, or for another place.
        """
        ...


class SealError(Exception):
    """What is sealed cannot be opened."""


class Signer(Protocol):
    """Signs deliveries."""

    def new_secret(self, randomness: bytes) -> Secret:
        """A secret, `whsec_…`."""
        ...

    def headers(self, secrets: Sequence[Secret], alert_id: str, now_us: int, body: str) -> dict[str, str]:
        """The headers of Standard Webhooks, with one signature for each secret."""
        ...
