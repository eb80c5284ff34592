"""What cannot be a document, a name or a time to live is refused in a sentence, never by an error of protobuf's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from flowstack import Agent, FlowStackError, InvalidRequestError, _documents
from flowstack._json import NotJsonError, encode
from flowstack.testing import FakeFlowStack

HALF = "\ud800"

REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "half a pair in a document": (lambda vault: vault.store("c", {"a": HALF}), "surrogate pair"),
    "half a pair in a filter": (lambda vault: vault.query("c", {"a": HALF}), "surrogate pair"),
    "half a pair in a key": (lambda vault: vault.store("c", {}, HALF), "key"),
    "a key that is a number": (lambda vault: vault.retrieve("c", 5), "key"),
    "a collection that is a number": (lambda vault: vault.query(5), "collection"),
    "a ttl of NaN": (lambda vault: vault.store("c", {}, ttl=math.nan), "ttl"),
    "a ttl without an end": (lambda vault: vault.store("c", {}, ttl=math.inf), "ttl"),
    "a ttl of ages": (lambda vault: vault.store("c", {}, ttl=1e30), "ttl"),
    "a ttl of text": (lambda vault: vault.store("c", {}, ttl="soon"), "ttl"),
    "a version of text": (lambda vault: vault.store("c", {}, "k", if_version="1"), "if_version"),
    "a version beyond all": (lambda vault: vault.delete("c", "k", if_version=2**40), "if_version"),
    "a filter that is a list": (lambda vault: vault.query("c", []), "dict"),
    "a deletion by text": (lambda vault: vault.delete("c", filter=""), "dict"),
    "an integer without an end": (lambda vault: vault.store("c", {"a": 10**5000}), "digits"),
}


@pytest.fixture
def agent() -> Iterator[Agent]:
    with FakeFlowStack() as fake, fake.agent() as made:
        yield made


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(agent: Agent, name: str) -> None:
    call, says = REFUSED[name]
    with pytest.raises(InvalidRequestError, match=says):
        call(agent.vault)


def test_an_integer_that_python_does_not_read_is_told(agent: Agent) -> None:
    long = Decimal(10) ** 5000
    agent.vault.store("c", {"a": long}, "k")
    for read in (lambda: agent.vault.retrieve("c", "k"), lambda: agent.vault.query("c", {"a": long})):
        with pytest.raises(FlowStackError) as caught:
            read()
        assert str(caught.value) == (
            "The document 'k' in c holds an integer of more digits than Python reads. Allow it more with "
            "sys.set_int_max_str_digits(), or print the document with `flowstack vault retrieve`."
        )


@pytest.mark.parametrize(
    ("ttl", "microseconds"),
    [
        (1e-9, 1),
        (timedelta(microseconds=1), 1),
        (timedelta(days=-1, seconds=86_401), 1_000_000),
    ],
)
def test_the_shortest_ttl_is_not_for_good(agent: Agent, ttl: Any, microseconds: int) -> None:
    duration = _documents._duration(ttl)
    assert duration.ToMicroseconds() == microseconds
    agent.vault.store("c", {}, "k", ttl=ttl)
    found = agent.vault.retrieve("c", "k")
    assert found is None or found.expire_time == found.update_time + timedelta(microseconds=microseconds)


@pytest.mark.parametrize("ttl", [0, -1e-9, -1, timedelta(0), timedelta(seconds=1, microseconds=-1_000_001), 3.2e8])
def test_a_ttl_is_above_0_and_up_to_10_years(agent: Agent, ttl: Any) -> None:
    with pytest.raises(InvalidRequestError, match="ttl"):
        agent.vault.store("c", {}, "k", ttl=ttl)
    assert agent.vault.retrieve("c", "k") is None


@pytest.mark.parametrize("text", ["\0decimal:[1]", 'a"\0decimal:5"', "\0decimal:"])
def test_no_text_passes_for_a_decimal(text: str) -> None:
    for value in ({"a": text}, {"a": text, "b": Decimal("1.50")}, {text: 1}):
        with pytest.raises(NotJsonError, match=r"U\+0000"):
            encode(value)
    assert encode({"a": "\\u0000decimal:5", "b": Decimal("1.50")}) == '{"a":"\\\\u0000decimal:5","b":1.50}'
