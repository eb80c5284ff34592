"""What is a filter and what is none."""

from __future__ import annotations

import json

import pytest

from services.shared.errors import FlowStackError, Reason
from services.vault.domain.filters import EVERYTHING, parse_deletion, parse_filter

NONE = {
    "not JSON": "{",
    "no object": "[]",
    "text": '"x"',
    "unknown operator": '{"a":{"$regex":"x"}}',
    "unknown at the top": '{"$where":"1"}',
    "expression": '{"$expr":{"$gt":["$a","$b"]}}',
    "operator beside a name": '{"a":{"$gt":1,"b":2}}',
    "not at a path": '{"a":{"$not":{"$gt":1}}}',
    "empty and": '{"$and":[]}',
    "empty or": '{"$or":[]}',
    "empty inside and": '{"$and":[{}]}',
    "empty inside not": '{"$not":{}}',
    "and of an object": '{"$and":{"a":1}}',
    "or of a scalar": '{"$or":[1]}',
    "not of an array": '{"$not":[{"a":1}]}',
    "in without an array": '{"a":{"$in":1}}',
    "nin without an array": '{"a":{"$nin":{"b":1}}}',
    "exists of a number": '{"a":{"$exists":1}}',
    "order of an object": '{"a":{"$gt":{"b":1}}}',
    "order of an array": '{"a":{"$lte":[]}}',
    "empty path": '{"":1}',
    "repeated name": '{"a":1,"a":2}',
    "NaN": '{"a":NaN}',
    "infinity": '{"a":{"$lt":-Infinity}}',
    "NUL": '{"a":"\\u0000"}',
    "half a pair": '{"a":"\\ud800"}',
    "half a pair in a path": '{"\\udc00":1}',
    "exponent": '{"a":1e9999999999}',
    "deep operand": '{"a":' + "[" * 64 + "]" * 64 + "}",
    "very deep": "[" * 30_000,
    "levels": '{"$not":' * 16 + '{"a":1}' + "}" * 16,
    "conditions": json.dumps({"$or": [{"a": {"$ne": number}} for number in range(257)]}),
}


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_filter_is_refused_without_quoting_it(name: str) -> None:
    with pytest.raises(FlowStackError) as raised:
        parse_filter(NONE[name])
    error = raised.value
    assert error.reason is Reason.INVALID_REQUEST
    (violation,) = error.violations
    assert violation.field == "filter_json"
    assert "$where" not in error.message
    assert "$regex" not in error.message


@pytest.mark.parametrize(
    "text",
    [
        '{"$not":' * 15 + '{"a":1}' + "}" * 15,
        json.dumps({"$or": [{"a": {"$ne": number}} for number in range(256)]}),
        '{"a":' + "[" * 63 + "]" * 63 + "}",
        '{"a":{}}',
        '{"a":[]}',
        '{"a":{"b":{"$c":1}}}',
        '{"a":{"$in":[]}}',
    ],
)
def test_filters_up_to_their_bounds_are_taken(text: str) -> None:
    assert parse_deletion(text) != EVERYTHING


@pytest.mark.parametrize("text", ["", "{}", " { } ", "{\n}"])
def test_an_empty_filter_is_everything_and_deletes_nothing(text: str) -> None:
    assert parse_filter(text) == EVERYTHING
    with pytest.raises(FlowStackError, match="all_documents"):
        parse_deletion(text)
