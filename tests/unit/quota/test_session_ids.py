"""Session ids: both forms carry the time at which they were made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.quota.domain.session_ids import made_us
from tests.support.clock import us
from tests.support.quota import ulid_session_id, uuid7_session_id

MADE_MS = st.integers(0, 2**48 - 1)


def test_uuid7_known_value() -> None:
    # The example of RFC 9562, appendix A.6: 2022-02-22T19:22:22.000Z.
    assert made_us("ses_017f22e279b07cc398c4dc0c0c07398f") == us(2022, 2, 22, 19, 22, 22)


def test_ulid_known_value() -> None:
    # The ULID specification's example of a timestamp: 1469918176385 ms.
    assert made_us("ses_01ARYZ6S41TSV4RRFFQ69G5FAV") == 1_469_918_176_385_000


@given(MADE_MS, st.integers(0, 2**62 - 1))
def test_uuid7_gives_its_time_back(made_ms: int, number: int) -> None:
    assert made_us(uuid7_session_id(made_ms * 1000, number)) == made_ms * 1000


@given(MADE_MS, st.integers(0, 2**80 - 1))
def test_ulid_gives_its_time_back(made_ms: int, number: int) -> None:
    assert made_us(ulid_session_id(made_ms * 1000, number)) == made_ms * 1000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ses_",
        "017f22e279b07cc398c4dc0c0c07398f",
        "ses_017f22e279b07cc398c4dc0c0c07398",
        "ses_017f22e279b07cc398c4dc0c0c07398f0",
        "ses_017F22E279B07CC398C4DC0C0C07398F",
        "ses_017f22e279b04cc398c4dc0c0c07398f",
        "ses_017f22e279b07cc3c8c4dc0c0c07398f",
        "ses_017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        "ses_017f22e279b07cc398c4dc0c0c07398f\n",
        "ses_01aryz6s41tsv4rrffq69g5fav",
        "ses_81ARYZ6S41TSV4RRFFQ69G5FAV",
        "ses_01ARYZ6S41TSV4RRFFQ69G5FAI",
        "ses_01ARYZ6S41TSV4RRFFQ69G5FAV0",
        "ses_01ARYZ6S41TSV4RRFFQ69G5FA\u0661",
    ],
    ids=[
        "empty",
        "prefix only",
        "no prefix",
        "too short",
        "too long",
        "upper case hex",
        "version 4",
        "wrong variant",
        "dashes",
        "newline",
        "lower case ulid",
        "over 128 bits",
        "letter outside Crockford's",
        "long ulid",
        "another script's digit",
    ],
)
def test_no_session_id(text: str) -> None:
    assert made_us(text) is None
