"""Keys that are made for documents without one."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.vault.domain.documents import new_key

YEAR_3000_US = 32_503_680_000_000_000


@given(st.integers(0, YEAR_3000_US), st.lists(st.binary(min_size=9, max_size=9), min_size=2, max_size=8))
def test_keys_go_in_the_order_of_their_time_to_the_microsecond(now_us: int, drawn: list[bytes]) -> None:
    keys = [
        new_key(now_us + later_us, lambda size, taken=random: taken[:size]) for later_us, random in enumerate(drawn)
    ]

    assert all(earlier < later for earlier, later in pairwise(keys))
    assert {len(key) for key in keys} == {32}
