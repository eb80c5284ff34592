"""What counts as a JSON object, in requests and in what models say, is one and the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flowstack_protos.router.v1 import router_service_pb2 as pb

from services.router.convert import request_from_proto
from services.router.domain import validation
from services.router.domain.request import Prompt
from services.router.providers.tool_calls import is_json_object
from services.shared.errors import FlowStackError

OBJECTS = {
    "empty": "{}",
    "spaces": ' {"a": [1, 2.5e3, true, null]}\n',
    "a pair of surrogates": r'{"a": "\ud83d\ude00"}',
    "a long integer": '{"a": %s}' % ("1" * 5000),
    "a large exponent": '{"a": 1e400}',
    "deep": '{"a":' * 200 + "1" + "}" * 200,
}
NO_OBJECTS = {
    "nothing": " ",
    "a list": "[]",
    "a text": '"x"',
    "NaN": '{"a": NaN}',
    "Infinity": '{"a": [-Infinity]}',
    "a lone surrogate": r'{"a": "\ud800"}',
    "a lone surrogate within": r'{"a": [{"b": "\ud800 "}]}',
    "a surrogate in a key": r'{"\udc00": 1}',
    "a control character": '{"a": "\x01"}',
    "a leading zero": '{"a": 01}',
    "two": "{} {}",
    "cut": '{"a":',
    "too deep": '{"a":' * 100_000,
}


def _arguments(text: str) -> Prompt:
    call = pb.ToolCallPart(id="c", name="t", arguments_json=text)
    message = pb.Message(role=pb.MESSAGE_ROLE_ASSISTANT, content=[pb.ContentPart(tool_call=call)])
    return request_from_proto(pb.CompleteRequest(messages=[message])).prompt


def _schema(text: str) -> Prompt:
    return request_from_proto(pb.CompleteRequest(tools=[pb.Tool(name="t", input_schema_json=text)])).prompt


def _response(text: str) -> Prompt:
    return request_from_proto(pb.CompleteRequest(response_schema_json=text)).prompt


FIELDS = [
    (_arguments, "messages[0].content[0].tool_call.arguments_json"),
    (_schema, "tools[0].input_schema_json"),
    (_response, "response_schema_json"),
]


@pytest.mark.parametrize("text", OBJECTS.values(), ids=OBJECTS.keys())
@pytest.mark.parametrize("make", [make for make, _ in FIELDS])
def test_an_object_is_taken(make: Callable[[str], Prompt], text: str) -> None:
    validation.check(make(text), is_json_object)


@pytest.mark.parametrize("text", NO_OBJECTS.values(), ids=NO_OBJECTS.keys())
@pytest.mark.parametrize(("make", "field"), FIELDS)
def test_what_is_no_object_is_named_by_its_field(make: Callable[[str], Prompt], field: str, text: str) -> None:
    with pytest.raises(FlowStackError) as caught:
        validation.check(make(text), is_json_object)

    assert [violation.field for violation in caught.value.violations] == [field]
