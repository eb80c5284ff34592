"""The form of API keys, their digests, and whether one is accepted.

    fs_ | id, 16 digits | secret, 52 digits | checksum, 7 digits         78 characters, no separators

The digits are base 32. The id names the row to compare with, `key_<id>`, and is no secret. The secret carries 256
random bits. The checksum tells a mistyped or made-up key from a real one without asking the database, and lets secret
scanners recognise a leaked key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import replace
from typing import Final, NamedTuple
from zlib import crc32

from services.billing.domain.ids import ALPHABET, Randomness, base32
from services.billing.domain.model import ApiKey, ApiKeyState
from services.shared.errors import FlowStackError, Reason
from services.shared.secret import Secret

PREFIX: Final = "fs_"
KEY_ID_PREFIX: Final = "key_"
ACTIVE_KEYS_MAX: Final = 100
"""How many keys of an account may be active at once. One that was rotated counts no more: its successor does."""

OVERLAP_US: Final = 24 * 3600 * 1_000_000
"""How long a key stays valid beside its successor, where its rotation says nothing else."""

_ID_BYTES, _ID_LENGTH = 10, 16
_SECRET_BYTES, _SECRET_LENGTH = 32, 52
_CHECKSUM_LENGTH: Final = 7
_FORM: Final = re.compile(f"{PREFIX}[{ALPHABET}]{{{_ID_LENGTH + _SECRET_LENGTH + _CHECKSUM_LENGTH}}}")


class NewKey(NamedTuple):
    """A key that was just made."""

    api_key_id: str
    secret: Secret
    """The whole key, `fs_…`."""


class Rotated(NamedTuple):
    """A key's successor, and the key itself with the end of its overlap."""

    successor: ApiKey
    previous: ApiKey


def make_key(randomness: Randomness) -> NewKey:
    """Makes a key."""
    key_id = base32(int.from_bytes(randomness(_ID_BYTES)), _ID_LENGTH)
    body = PREFIX + key_id + base32(int.from_bytes(randomness(_SECRET_BYTES)), _SECRET_LENGTH)
    return NewKey(KEY_ID_PREFIX + key_id, Secret(body + _checksum(body)))


def key_id_of(secret: Secret) -> str | None:
    """The id that a well-formed key names; None where form or checksum is wrong."""
    text = secret.reveal()
    if not _FORM.fullmatch(text) or _checksum(text[:-_CHECKSUM_LENGTH]) != text[-_CHECKSUM_LENGTH:]:
        return None
    return KEY_ID_PREFIX + text[len(PREFIX) : len(PREFIX) + _ID_LENGTH]


def digest_of(secret: Secret, pepper: Secret) -> bytes:
    """HMAC-SHA256 of the whole key: keys that share a prefix share nothing here."""
    return hmac.digest(pepper.reveal().encode(), secret.reveal().encode(), hashlib.sha256)


def check_key(stored: ApiKey | None, digest: bytes, now_us: int) -> ApiKey:
    """The stored key, where `digest` is of its secret and it is valid at `now_us`.

    Raises:
        FlowStackError: API_KEY_INVALID, API_KEY_REVOKED, API_KEY_EXPIRED.
    """
    # State is told only to who has the secret: the id alone must not reveal that a key exists.
    if stored is None or not hmac.compare_digest(stored.digest, digest):
        raise invalid_key()
    state = stored.state_at(now_us)
    if state is ApiKeyState.REVOKED:
        raise FlowStackError(Reason.API_KEY_REVOKED, "The API key was revoked. Use another key of the account.")
    if state is ApiKeyState.EXPIRED:
        raise FlowStackError(Reason.API_KEY_EXPIRED, "The API key has expired. Use another key of the account.")
    return stored


def rotate(key: ApiKey, made: NewKey, digest: bytes, *, overlap_us: int, expire_us: int, now_us: int) -> Rotated:
    """Gives `key` a successor; both are valid until the overlap ends, `key` never beyond its own expiry.

    Args:
        key: the key to replace.
        made: its successor.
        digest: the successor's.
        overlap_us: how long `key` stays valid; 0 for no longer.
        expire_us: from when the successor is refused; 0 for never.
        now_us: the present.

    Raises:
        FlowStackError: API_KEY_NOT_ACTIVE: revoked, expired or rotated already.
    """
    state = key.state_at(now_us)
    if state is not ApiKeyState.ACTIVE:
        raise FlowStackError(
            Reason.API_KEY_NOT_ACTIVE,
            f"The API key is {state.name} and cannot be rotated. Rotate its successor, or create another key.",
            metadata={"state": state.name},
        )
    successor = ApiKey(
        made.api_key_id, key.account_id, key.display_name, digest, now_us, expire_us, 0, 0, key.api_key_id, ""
    )
    end_us = now_us + overlap_us
    previous = replace(
        key, expire_us=min(key.expire_us, end_us) if key.expire_us else end_us, rotated_to=made.api_key_id
    )
    return Rotated(successor, previous)


def invalid_key() -> FlowStackError:
    """API_KEY_INVALID."""
    return FlowStackError(
        Reason.API_KEY_INVALID, "The API key is not known. Check that it was copied whole, `fs_` and 75 characters."
    )


def _checksum(body: str) -> str:
    return base32(crc32(body.encode()), _CHECKSUM_LENGTH)
