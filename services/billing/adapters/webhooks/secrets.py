"""How webhooks' addresses and secrets are kept, and how deliveries are signed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from standardwebhooks import Webhook

from services.billing.domain.ids import Randomness
from services.billing.webhooks import SealError
from services.shared.periods import time_from_us
from services.shared.secret import Secret

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SCHEME: Final = b"\x01"
"""Of what was sealed, so that another scheme can follow this one."""


class PepperSealer:
    """Seals with a key derived from FLOWSTACK_KEY_PEPPER, which stands outside the database.

    AES-256-GCM-SIV (RFC 8452), which survives a repeated nonce; the place is authenticated, so that nobody who can
    write to the database can have one webhook's secret used for another. The key is HKDF-SHA256 of the pepper.
    """

    def __init__(self, pepper: Secret, randomness: Randomness) -> None:
        derived = HKDF(SHA256(), _KEY_BYTES, None, b"flowstack webhooks").derive(pepper.reveal().encode())
        self._cipher = AESGCMSIV(derived)
        self._randomness = randomness

    def seal(self, text: str, place: str) -> bytes:
        """The text, unreadable without the key; good for `place` alone."""
        nonce = self._randomness(_NONCE_BYTES)
        return _SCHEME + nonce + self._cipher.encrypt(nonce, text.encode(), place.encode())

    def open(self, sealed: bytes, place: str) -> Secret:
        """The text again.

        Raises:
            SealError: it was sealed with another key, or for another place.
        """
        begin = len(_SCHEME) + _NONCE_BYTES
        if not sealed.startswith(_SCHEME):
            raise SealError
        try:
            text = self._cipher.decrypt(sealed[len(_SCHEME) : begin], sealed[begin:], place.encode())
        except (InvalidTag, ValueError):
            raise SealError from None
        return Secret(text.decode())


class StandardSigner:
    """Signs as Standard Webhooks asks."""

    def new_secret(self, randomness: bytes) -> Secret:
        """A secret, `whsec_…`."""
        return Secret("whsec_" + base64.b64encode(randomness).decode())

    def headers(self, secrets: Sequence[Secret], alert_id: str, now_us: int, body: str) -> dict[str, str]:
        """The headers, with one signature for each secret, the newest first."""
        time = time_from_us(now_us)
        signatures = [Webhook(secret.reveal()).sign(alert_id, time, body) for secret in secrets]
        return {
            "webhook-id": alert_id,
            "webhook-timestamp": str(int(time.timestamp())),
            "webhook-signature": " ".join(signatures),
        }
