from __future__ import annotations

from collections.abc import Callable

import protovalidate
import pytest
from flowstack_protos.router.v1 import router_service_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.plain import is_plain

texts = st.one_of(st.text(max_size=3), st.sampled_from(["", "a" * 64, "a" * 65, "é" * 128, "a" * 256, "a" * 257, " "]))
names = st.one_of(texts, st.sampled_from(["openai", "echo", "UPPER", "a-b_c", "-a", "openai\n"]))
keys = st.one_of(texts, st.sampled_from(["sk-x", "x" * 512, "x" * 513, "two words", "sk-x\n"]))
messages = st.builds(
    pb.Message,
    role=st.sampled_from([0, 1, 2, 3, 4, 9]),
    content=st.lists(
        st.one_of(
            st.builds(pb.ContentPart, text=texts),
            st.just(pb.ContentPart()),
            st.just(pb.ContentPart(tool_call=pb.ToolCallPart())),
        ),
        max_size=2,
    ),
)
credentials = st.one_of(
    st.builds(pb.OpenAiCredentials, api_key=keys, organization=texts).map(lambda c: pb.ByokCredentials(openai=c)),
    st.builds(pb.AnthropicCredentials, api_key=keys).map(lambda c: pb.ByokCredentials(anthropic=c)),
    st.builds(pb.BedrockCredentials, region=texts).map(lambda c: pb.ByokCredentials(bedrock=c)),
    st.just(pb.ByokCredentials()),
)
requests = st.builds(
    pb.CompleteRequest,
    request_id=texts,
    provider=names,
    model=texts,
    messages=st.lists(messages, max_size=2),
    max_output_tokens=st.sampled_from([None, None, -1, 0, 1]),
    temperature=st.sampled_from([None, None, -0.1, 0.0, 2.0, 2.1, float("nan")]),
    top_p=st.sampled_from([None, None, 0.0, 1.0, 1.1, float("nan")]),
    byok=st.lists(credentials, max_size=2),
    labels=st.dictionaries(texts, texts, max_size=17),
)


def plain() -> pb.CompleteRequest:
    return pb.CompleteRequest(
        request_id="order-7",
        provider="openai",
        model="gpt-4o",
        messages=[pb.Message(role=pb.MESSAGE_ROLE_USER, content=[pb.ContentPart(text="Grüße")])],
        max_output_tokens=1,
        temperature=2,
        top_p=1,
        byok=[pb.ByokCredentials(openai=pb.OpenAiCredentials(api_key="sk-x"))],
        labels={"team": "blue"},
    )


@settings(max_examples=500)
@given(requests, st.sets(st.sampled_from([field.name for field in pb.CompleteRequest.DESCRIPTOR.fields]), max_size=2))
def test_what_it_vouches_for_is_valid(drawn: pb.CompleteRequest, fields: set[str]) -> None:
    """A plain request with some fields of another one: so that most are nearly plain, and many are."""
    request = plain()
    for field in pb.CompleteRequest.DESCRIPTOR.fields:
        (request if field.name in fields else drawn).ClearField(field.name)
    request.MergeFrom(drawn)
    if is_plain(request):
        assert protovalidate.collect_violations(request) == []


def test_it_vouches_for_what_most_callers_send() -> None:
    assert is_plain(plain())


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.messages[0].content.add(image=pb.ImagePart()),
        lambda r: r.messages.add(),
        lambda r: r.tools.add(name="look"),
        lambda r: r.fallbacks.add(),
        lambda r: r.byok.add(anthropic=pb.AnthropicCredentials(api_key="sk-y")),
        lambda r: r.ClearField("messages"),
        lambda r: r.ClearField("provider"),
        lambda r: r.tool_choice.SetInParent(),
        lambda r: r.stop_sequences.append(""),
        lambda r: setattr(r, "response_schema_json", ""),
        lambda r: setattr(r, "reasoning_effort", 99),
        lambda r: setattr(r, "top_p", 0),
        lambda r: setattr(r, "model", "é"),
    ],
)
def test_the_rest_is_for_the_rules(change: Callable[[pb.CompleteRequest], object]) -> None:
    request = plain()
    change(request)
    assert not is_plain(request)
