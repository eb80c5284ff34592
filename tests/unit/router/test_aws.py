"""Signatures beside boto3's own, where regions are, and whose credentials are used."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import botocore.auth
import botocore.httpchecksum
import botocore.session
import msgspec
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import ClientError

from services.router.domain.outcome import AttemptFailure
from services.router.domain.request import (
    BedrockCredentials,
    ImagePart,
    Message,
    Prompt,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from services.router.providers.aws import BotoCredentials, converse_url, endpoint_of, signed_headers
from services.router.providers.bedrock_wire import encode_request
from services.router.providers.port import ProviderError
from services.router.providers.traits import UNKNOWN, Reasoning
from services.shared.secret import Secret

NOW = datetime(2026, 11, 24, 18, 0, 0, tzinfo=UTC)
ID, KEY = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVzLWVhc3QtMSJH"
MODELS = [
    "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-5-5",
    "plain",
]


def boto3s_request(model: str, token: str, region: str, **converse: Any) -> AWSPreparedRequest:
    """What boto3 itself would send, caught before it is."""
    sent: list[AWSPreparedRequest] = []

    def caught(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        sent.append(request)
        return AWSResponse(request.url, 500, {}, None)

    session = boto3.session.Session(ID, KEY, token or None, region, botocore_session=botocore.session.Session())
    client = session.client("bedrock-runtime")
    client.meta.events.register("before-send.bedrock-runtime.ConverseStream", caught)
    with pytest.raises(Exception, match=r".*"):
        client.converse_stream(modelId=model, **converse)
    return sent[0]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("token", ["", TOKEN], ids=["long-lived", "session token"])
def test_a_request_is_signed_as_boto3_signs_it(monkeypatch: pytest.MonkeyPatch, model: str, token: str) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: NOW)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    theirs = boto3s_request(model, token, "us-west-2", messages=[{"role": "user", "content": [{"text": "hi ü"}]}])

    url = converse_url(endpoint_of("us-west-2"), model)
    credentials = BedrockCredentials(Secret(ID), Secret(KEY), Secret(token))
    body = theirs.body if isinstance(theirs.body, bytes) else theirs.body.encode()
    ours = signed_headers(credentials, "us-west-2", url, body, {"Content-Type": "application/json"})

    def text(value: Any) -> str:
        return value.decode() if isinstance(value, bytes) else value

    assert url == theirs.url
    assert ours["Authorization"] == text(theirs.headers["Authorization"])
    assert ours["X-Amz-Date"] == text(theirs.headers["X-Amz-Date"])
    assert ours.get("X-Amz-Security-Token", "") == token


def test_a_body_says_what_boto3_would_say() -> None:
    """The same conversation by boto3's own serializer, which checks it against the service's model as well."""
    prompt = Prompt(
        messages=(
            Message(Role.SYSTEM, (TextPart("be brief"),)),
            Message(Role.USER, (TextPart("what is this?"), ImagePart(b"\x89PNG", "image/png"))),
            Message(Role.ASSISTANT, (ToolCallPart("call_1", "look", '{"at": 1}'),)),
            Message(Role.TOOL, (ToolResultPart("call_1", "nothing", is_error=True),)),
        ),
        tools=(Tool("look", "Looks.", '{"type":"object","properties":{"at":{"type":"integer"}}}'), Tool("wait")),
        max_output_tokens=100,
        temperature=0.5,
        top_p=0.25,
        stop_sequences=("END",),
        response_schema_json='{"type":"object"}',
    )
    theirs = boto3s_request(
        "m",
        "",
        "us-east-1",
        system=[{"text": "be brief"}],
        messages=[
            {
                "role": "user",
                "content": [
                    {"text": "what is this?"},
                    {"image": {"format": "png", "source": {"bytes": b"\x89PNG"}}},
                ],
            },
            {
                "role": "assistant",
                "content": [{"toolUse": {"toolUseId": "call_1", "name": "look", "input": {"at": 1}}}],
            },
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": "call_1", "content": [{"text": "nothing"}], "status": "error"}}
                ],
            },
        ],
        toolConfig={
            "tools": [
                {
                    "toolSpec": {
                        "name": "look",
                        "description": "Looks.",
                        "inputSchema": {"json": {"type": "object", "properties": {"at": {"type": "integer"}}}},
                    }
                },
                {"toolSpec": {"name": "wait", "inputSchema": {"json": {"type": "object", "properties": {}}}}},
            ]
        },
        inferenceConfig={"maxTokens": 100, "temperature": 0.5, "topP": 0.25, "stopSequences": ["END"]},
        outputConfig={
            "textFormat": {
                "type": "json_schema",
                "structure": {"jsonSchema": {"name": "response", "schema": '{"type":"object"}'}},
            }
        },
    )
    assert msgspec.json.decode(encode_request(prompt, UNKNOWN, Reasoning.NONE)) == msgspec.json.decode(theirs.body)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east-1", "bedrock-runtime.us-east-1.amazonaws.com"),
        ("us-gov-west-1", "bedrock-runtime.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "bedrock-runtime.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_where_a_region_is(region: str, host: str) -> None:
    assert endpoint_of(region) == f"https://{host}"


class Session:
    """A session of boto3's whose credentials are what a test says."""

    def __init__(self, found: Any) -> None:
        self.found = found
        self.threads: list[int] = []

    def get_credentials(self) -> Any:
        self.threads.append(threading.get_ident())
        return self.found


class Renewals:
    """Renews credentials in as many steps as a test lets it."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.count = 0
        self.threads: set[int] = set()

    def __call__(self) -> dict[str, str]:
        self.threads.add(threading.get_ident())
        assert self.gate.acquire(timeout=20)
        self.count += 1
        return self.of(3600)

    def of(self, seconds: float) -> dict[str, str]:
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        return {
            "access_key": f"ASIA{self.count}",
            "secret_key": "s",
            "token": "t",
            "expiry_time": expires.isoformat(),
        }


async def test_credentials_are_found_in_a_thread_and_once() -> None:
    session = Session(Credentials(ID, KEY))
    source = BotoCredentials(lambda: session)
    found = await asyncio.gather(*(source.get() for _ in range(5)))

    assert {credentials.access_key_id.reveal() for credentials in found} == {ID}
    assert found[0].session_token.reveal() == ""
    assert len(session.threads) == 1
    assert session.threads[0] != threading.get_ident()


async def test_none_are_found() -> None:
    with pytest.raises(ProviderError) as caught:
        await BotoCredentials(lambda: Session(None)).get()
    assert caught.value.failure is AttemptFailure.CREDENTIALS_REFUSED
    assert caught.value.message == ""


async def test_nobody_waits_for_a_renewal_while_the_old_ones_are_valid() -> None:
    renewals = Renewals()
    first = renewals.of(12 * 60)
    found = RefreshableCredentials.create_from_metadata(first, renewals, "test")
    source = BotoCredentials(lambda: Session(found))
    renewals.gate.release()
    assert (await source.get()).access_key_id.reveal() == "ASIA1", "the first time there is nothing older"

    # They come near their end: botocore would renew them within the call.
    found._expiry_time = datetime.now(UTC) + timedelta(minutes=12)
    for _ in range(3):
        assert (await source.get()).access_key_id.reveal() == "ASIA1"
    renewal = source._renewal
    assert renewal is not None
    renewals.gate.release()
    async with asyncio.timeout(20):
        await renewal

    assert (await source.get()).access_key_id.reveal() == "ASIA2"
    assert renewals.count == 2, "one renewal for all"
    assert threading.get_ident() not in renewals.threads


async def test_expired_ones_are_waited_for() -> None:
    renewals = Renewals()
    found = RefreshableCredentials.create_from_metadata(renewals.of(3600), renewals, "test")
    source = BotoCredentials(lambda: Session(found))
    await source.get()
    found._expiry_time = datetime.now(UTC) - timedelta(seconds=1)
    callers = [asyncio.create_task(source.get()) for _ in range(3)]
    await asyncio.sleep(0)
    callers[0].cancel()
    renewals.gate.release()
    rest = await asyncio.gather(*callers[1:])

    assert {credentials.access_key_id.reveal() for credentials in rest} == {"ASIA1"}
    assert renewals.count == 1


@pytest.mark.parametrize(
    "error",
    [OSError("no role"), ClientError({"Error": {"Code": "AccessDenied"}}, "AssumeRole"), KeyError("x")],
    ids=repr,
)
async def test_a_renewal_that_fails_is_tried_again(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    renewals = Renewals()
    broken = True

    def renew() -> dict[str, str]:
        if broken:
            raise error
        renewals.count += 1
        return renewals.of(3600)

    found = RefreshableCredentials.create_from_metadata(renewals.of(3600), renew, "test")
    source = BotoCredentials(lambda: Session(found))
    await source.get()
    found._expiry_time = datetime.now(UTC) - timedelta(seconds=1)
    with pytest.raises(ProviderError):
        await source.get()
    broken = False

    assert "AssumeRole" not in "".join(capsys.readouterr())
    assert (await source.get()).access_key_id.reveal() == "ASIA1"
