"""Whatever a user hands in, what comes out is a sentence of the right class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from flowstack import Agent, ConfigurationError, InternalError, InvalidRequestError
from flowstack._endpoints import endpoints_from
from flowstack._status import error_from_rpc
from flowstack.testing import FakeFlowStack

KEY = "fs_" + "0" * 75
HALF = "half a \ud83d pair"


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeFlowStack]:
    with FakeFlowStack() as made:
        yield made


@pytest.fixture
def agent(fake: FakeFlowStack) -> Iterator[Agent]:
    with fake.agent(provider="echo", record_providers=False) as made:
        yield made


MESSAGES = [None, 5, b"x", {}, {"role": "user", "content": "x"}, ["x"], [("role", "user")], Ellipsis, [{"role": []}]]


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_what_is_no_message(agent: Agent, message: Any) -> None:
    with pytest.raises(InvalidRequestError, match="A message has to be text, or a list of"):
        agent.chat(message)


def test_a_message_of_half_a_character(agent: Agent) -> None:
    with pytest.raises(InvalidRequestError, match="text has to be text, without half a surrogate pair; it is not"):
        agent.chat(HALF)


def test_a_message_that_no_call_can_hold(agent: Agent) -> None:
    with pytest.raises(InvalidRequestError, match=r"The chat has 17,\d{3},\d{3} bytes; 16,777,216 are allowed\."):
        agent.chat("x" * 17_000_000)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("temperature", "hot", "temperature has to be a number"),
        ("max_output_tokens", 2**40, "max_output_tokens has to be a whole number of at most 32 bits"),
        ("max_output_tokens", 1.5, "max_output_tokens has to be a whole number"),
        ("stop_sequences", "END", "stop_sequences has to be a list, each of it text"),
        ("stop_sequences", 5, "stop_sequences has to be a list, each of it text"),
        ("labels", "x", "labels has to be a dict of text to text"),
        ("labels", {"a": 1}, "labels has to be a dict of text to text"),
        ("labels", {"a": HALF}, "labels has to be a dict of text to text"),
        ("reasoning_effort", 5, "reasoning_effort has to be one of minimal, low, medium, high"),
        ("reasoning_effort", "huge", "reasoning_effort has to be one of minimal, low, medium, high"),
        ("fallbacks", ["echo"], r"fallbacks has to be a list of \(provider, model\)"),
        ("fallbacks", 5, r"fallbacks has to be a list of \(provider, model\)"),
        ("fallbacks", [("echo", HALF)], "model has to be text"),
        ("response_schema", {"a": math.nan}, "response_schema cannot be sent: NaN"),
        ("request_id", 5, "request_id has to be text"),
        ("system", HALF, "text has to be text"),
        *[
            ("timeout_s", bad, "timeout_s has to be a number of seconds, over 0")
            for bad in ("x", 0, -1, math.inf, math.nan)
        ],
    ],
)
def test_options_that_no_request_can_hold(agent: Agent, option: str, value: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        agent.chat("Hello", **{option: value})  # type: ignore[arg-type]
    assert "hot" not in str(caught.value)


def test_a_tool_choice_that_is_no_text(agent: Agent) -> None:
    @agent.tool
    def tool() -> None: ...

    with pytest.raises(InvalidRequestError, match="tool_name has to be text"):
        agent.chat("Hello", tool_choice=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_request_id_is_none_and_one_is_made(fake: FakeFlowStack, agent: Agent, empty: Any) -> None:
    fake.be_unavailable(1)
    agent.chat("Hello", request_id=empty)
    first, second = (request.request_id for request in fake.requests[-2:])
    assert first == second != ""


AGENTS: list[tuple[dict[str, Any], str]] = [
    ({"name": HALF}, "name has to be text"),
    ({"provider": 5}, "provider has to be text"),
    ({"provider": "echo", "model": HALF}, "model has to be text"),
    ({"provider": "openai", "byok": 5}, "byok for openai has to be a dict or a key, not int"),
    ({"provider": "openai", "byok": [("api_key", "k")]}, "byok for openai has to be a dict or a key, not list"),
    ({"endpoint": 5}, "endpoint has to be text, or a dict"),
    ({"endpoint": {"router": 5}}, "endpoint has to be https://host"),
    ({"endpoint": "http://[::1"}, "endpoint has to be https://host"),
    ({"request_id": "r"}, "request_id belongs to one chat"),
    ({"api_key": 5}, "The API key is malformed"),
]


@pytest.mark.parametrize(("options", "says"), AGENTS, ids=str)
def test_agents_that_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Agent(**{"name": "a", "api_key": KEY} | options)


CALLS: list[tuple[str, Callable[[Agent], Any]]] = [
    ("The document cannot be stored: half a surrogate pair", lambda a: a.vault.store("c", {"a": HALF})),
    ("collection has to be text", lambda a: a.vault.store(HALF, {})),
    ("collection has to be text", lambda a: a.vault.query(5)),
    ("key has to be text", lambda a: a.vault.store("c", {}, key=5)),
    ("key has to be text", lambda a: a.vault.retrieve("c", 5)),
    ("key has to be text", lambda a: a.vault.delete("c", 5)),
    ("if_version has to be a whole number", lambda a: a.vault.store("c", {}, key="k", if_version=2**70)),
    ("if_version has to be a whole number", lambda a: a.vault.delete("c", "k", if_version="1")),
    *[("ttl has to be", lambda a, ttl=ttl: a.vault.store("c", {}, ttl=ttl)) for ttl in (math.nan, math.inf, "5", 1e15)],
    *[("max_monthly_cost has to be", lambda a, cost=cost: a.budget.set(cost)) for cost in (1e30, math.nan, "x", None)],
    ("action has to be one of warn, block", lambda a: a.budget.set(5, [])),
    ("thresholds has to be a list, each of it a whole number", lambda a: a.alerts.set_thresholds([7.5])),
    ("thresholds has to be a list, each of it a whole number", lambda a: a.alerts.set_thresholds(5)),
    ("webhook_ids has to be a list", lambda a: a.alerts.send_to("wh_1")),
    ("webhook_id has to be text", lambda a: a.alerts.send_to([5])),
    ("message has to be text", lambda a: a.alerts.send(HALF)),
    ("limit has to be a whole number", lambda a: a.alerts.list("5")),
    ("url has to be text", lambda a: a.alerts.create_webhook(5)),
    ("provider has to be text", lambda a: a.models(5)),
]


@pytest.mark.parametrize(("says", "call"), CALLS)
def test_calls_that_no_request_can_hold(agent: Agent, says: str, call: Callable[[Agent], Any]) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        call(agent)


def test_a_ttl_may_be_either(agent: Agent) -> None:
    for ttl in (60, 60.0, timedelta(minutes=1)):
        agent.vault.store("c", {}, key="k", ttl=ttl)
        found = agent.vault.retrieve("c", "k")
        assert found is not None
        assert found.expire_time == found.update_time + timedelta(minutes=1)


class GarbledError(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.INTERNAL

    def details(self) -> str:
        return "x"

    def trailing_metadata(self) -> Any:
        return (("grpc-status-details-bin", b"\xff\xfe garbage"),)


def test_details_that_are_no_details() -> None:
    error = error_from_rpc(GarbledError(), endpoints_from({}).router)
    assert type(error) is InternalError
    assert "answered INTERNAL: x" in str(error)
