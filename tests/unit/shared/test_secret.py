"""A secret cannot be printed."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest

from services.shared.secret import REDACTED, Secret

PLANTED = "planted-value-that-nobody-may-see"


@pytest.mark.parametrize(
    "text",
    [
        str(Secret(PLANTED)), repr(Secret(PLANTED)), f"{Secret(PLANTED)}", f"{Secret(PLANTED)!r:>40}".strip(),
        f"{Secret(PLANTED):s}", f"{Secret(PLANTED):>80}", "-".join(map(str, (Secret(PLANTED),))),
        str([Secret(PLANTED)])[1:-1],
    ],
)  # fmt: skip
def test_no_text_shows_it(text: str) -> None:
    assert text == REDACTED


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_never_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps({"key": Secret(PLANTED)}, protocol)


def test_it_is_not_copied_unseen_either() -> None:
    with pytest.raises(TypeError):
        copy.deepcopy(Secret(PLANTED))


def test_an_exception_that_carries_it_does_not_show_it() -> None:
    try:
        raise ValueError(Secret(PLANTED))
    except ValueError as error:
        assert PLANTED not in "".join(traceback.format_exception(error))


def test_equality_is_of_the_values() -> None:
    assert Secret("é") == Secret("é")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert (bool(Secret("")), bool(Secret("a"))) == (False, True)
    assert Secret(PLANTED).reveal() == PLANTED
