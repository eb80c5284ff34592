from __future__ import annotations

import re
import uuid

from hypothesis import given
from hypothesis import strategies as st

from services.router.domain.session_id import RANDOM_BITS, session_id

SHAPE = re.compile(r"^ses_[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}$")
TIMES = st.integers(min_value=0, max_value=2**47 * 1000)
BITS = st.integers(min_value=0, max_value=2**RANDOM_BITS - 1)


@given(TIMES, BITS)
def test_it_is_a_uuid_of_version_7_with_its_time(now_us: int, bits: int) -> None:
    made = session_id(now_us, bits)

    assert SHAPE.match(made)
    parsed = uuid.UUID(made.removeprefix("ses_"))
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == now_us // 1000


@given(TIMES, BITS, BITS)
def test_later_sorts_after_earlier(now_us: int, left: int, right: int) -> None:
    assert session_id(now_us, left) < session_id(now_us + 1000, right)


@given(BITS, BITS)
def test_other_randomness_is_another_id(left: int, right: int) -> None:
    assert (session_id(0, left) == session_id(0, right)) == (left == right)
