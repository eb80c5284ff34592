"""The form of keys, and what is checked before and after the store is asked."""

from __future__ import annotations

import itertools

import pytest

from services.billing.domain.api_keys import check_key, digest_of, key_id_of, make_key
from services.billing.domain.ids import ALPHABET, base32, new_id
from services.billing.domain.model import ApiKey, ApiKeyState
from services.shared.errors import FlowStackError
from services.shared.secret import Secret

PEPPER = Secret("pepper")
NOW_US = 1_000_000


def counted(*values: int) -> object:
    """Randomness that gives these numbers, one for each call."""
    numbers = itertools.cycle(values)
    return lambda size: next(numbers).to_bytes(size)


def stored(secret: Secret, **fields: object) -> ApiKey:
    values = {
        "api_key_id": "key_1",
        "account_id": "acct_1",
        "display_name": "",
        "digest": digest_of(secret, PEPPER),
        "create_us": 1,
        "expire_us": 0,
        "revoke_us": 0,
        "last_use_us": 0,
        "rotated_from": "",
        "rotated_to": "",
    }
    return ApiKey(**(values | fields))  # type: ignore[arg-type]


def test_base32_is_exact() -> None:
    assert base32(0, 3) == "000"
    assert base32(31, 2) == "0z"
    assert base32(32 * 10 + 1, 2) == "a1"
    assert len(set(ALPHABET)) == 32


def test_ids_have_their_prefix_and_form() -> None:
    made = new_id("acct_", lambda size: b"\xff" * size)
    assert made == "acct_" + "z" * 24


def test_a_key_names_its_id() -> None:
    made = make_key(counted(7, 2**256 - 1))  # type: ignore[arg-type]
    assert made.secret.reveal().startswith("fs_0000000000000007")
    assert len(made.secret.reveal()) == 78
    assert key_id_of(made.secret) == made.api_key_id == "key_0000000000000007"


def test_every_bit_of_the_randomness_is_in_the_key() -> None:
    keys = {make_key(counted(0, 1 << bit)).secret.reveal() for bit in range(256)}  # type: ignore[arg-type]
    assert len(keys) == 256


def test_every_single_digit_matters_to_the_checksum() -> None:
    text = make_key(counted(1, 2**200 + 12345)).secret.reveal()  # type: ignore[arg-type]
    for place in range(3, len(text)):
        for digit in ALPHABET:
            if digit != text[place]:
                assert key_id_of(Secret(text[:place] + digit + text[place + 1 :])) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "0",
        lambda text: text[:-1],
        lambda text: text.upper(),
        lambda text: " " + text,
        lambda text: text + "\n",
        lambda text: text.replace("fs_", "sk_"),
        lambda _: "",
    ],
)
def test_a_malformed_key_has_no_id(change: object) -> None:
    text = make_key(counted(1, 2)).secret.reveal()  # type: ignore[arg-type]
    assert key_id_of(Secret(change(text))) is None  # type: ignore[operator]


def test_keys_with_the_same_id_do_not_collide() -> None:
    mine = make_key(counted(7, 1)).secret  # type: ignore[arg-type]
    theirs = make_key(counted(7, 2)).secret  # type: ignore[arg-type]
    assert key_id_of(mine) == key_id_of(theirs)
    key = stored(mine)
    assert check_key(key, digest_of(mine, PEPPER), NOW_US) is key
    with pytest.raises(FlowStackError, match="not known"):
        check_key(key, digest_of(theirs, PEPPER), NOW_US)


def test_another_pepper_knows_no_key() -> None:
    secret = make_key(counted(1, 2)).secret  # type: ignore[arg-type]
    with pytest.raises(FlowStackError, match="not known"):
        check_key(stored(secret), digest_of(secret, Secret("other")), NOW_US)


def test_a_state_is_told_only_to_who_has_the_secret() -> None:
    secret = make_key(counted(1, 2)).secret  # type: ignore[arg-type]
    other = make_key(counted(1, 3)).secret  # type: ignore[arg-type]
    key = stored(secret, revoke_us=1)
    for found, offered, reason in (
        (None, secret, "API_KEY_INVALID"),
        (key, other, "API_KEY_INVALID"),
        (key, secret, "API_KEY_REVOKED"),
    ):
        with pytest.raises(FlowStackError) as raised:
            check_key(found, digest_of(offered, PEPPER), NOW_US)
        assert raised.value.reason.value == reason


def test_a_key_expires_at_its_time_and_not_before() -> None:
    key = stored(Secret("x"), expire_us=NOW_US)
    assert key.state_at(NOW_US - 1) is ApiKeyState.ACTIVE
    assert key.state_at(NOW_US) is ApiKeyState.EXPIRED


def test_revoked_comes_before_expired_and_rotating() -> None:
    assert stored(Secret("x"), expire_us=1, revoke_us=1).state_at(NOW_US) is ApiKeyState.REVOKED
    assert stored(Secret("x"), rotated_to="key_2").state_at(NOW_US) is ApiKeyState.ROTATING
    assert stored(Secret("x"), rotated_to="key_2", expire_us=1).state_at(NOW_US) is ApiKeyState.EXPIRED
