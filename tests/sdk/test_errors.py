"""Bad input and failing services, answered with one class each and a sentence that helps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import grpc
import pytest

import flowstack
from flowstack import Agent, ConfigurationError, _errors
from flowstack._endpoints import endpoints_from
from flowstack._errors import BY_CODE, BY_REASON, FlowStackError, error_class
from flowstack._status import error_from_rpc
from flowstack.testing import FakeFlowStack
from tests.support.suite import free_ports

KEY = "fs_" + "0" * 75
ROUTER = endpoints_from({}).router


class FailedCallError(Exception):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "some text"

    def trailing_metadata(self) -> tuple[()]:
        return ()


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_is_one_class(code: grpc.StatusCode) -> None:
    error = error_from_rpc(FailedCallError(code), ROUTER)  # type: ignore[arg-type]
    assert isinstance(error, BY_CODE[code.name])
    assert error.code == code.name
    assert "router" in str(error)


@pytest.mark.parametrize("reason", BY_REASON)
def test_every_reason_is_below_exactly_one_code(reason: str) -> None:
    codes = [code for code in BY_CODE if error_class(code, reason) is BY_REASON[reason]]
    assert len({BY_CODE[code] for code in codes}) == 1


def test_the_tree_at_the_top_of_the_module_is_the_tree() -> None:
    assert _errors.__doc__
    drawn = re.findall(r"(\w+Error)\b", _errors.__doc__)
    defined = [name for name, one in vars(_errors).items() if isinstance(one, type) and issubclass(one, FlowStackError)]
    assert drawn == defined
    assert set(defined) <= set(flowstack.__all__)


def test_what_is_public_is_what_is_listed() -> None:
    assert sorted(flowstack.__all__) == flowstack.__all__
    assert all(hasattr(flowstack, name) for name in flowstack.__all__)


@pytest.mark.parametrize(("key", "says"), [(None, "no API key"), ("sk-123", "malformed"), ("fs_a b", "malformed")])
def test_a_key_is_checked_before_any_call(monkeypatch: pytest.MonkeyPatch, key: str | None, says: str) -> None:
    monkeypatch.delenv("FLOWSTACK_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=says) as caught:
        Agent("a", key)
    assert key is None or key not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "endpoint", "targets"),
    [
        ({}, None, ["127.0.0.1:50051", "127.0.0.1:50053", "127.0.0.1:50054"]),
        ({"FLOWSTACK_ENDPOINT": "https://api.example"}, None, ["https://api.example:443"] * 3),
        ({"FLOWSTACK_ENDPOINT": "http://api.example"}, None, ["api.example:80"] * 3),
        ({"FLOWSTACK_ENDPOINT": "h:1", "FLOWSTACK_VAULT_ENDPOINT": "[::1]:2"}, None, ["h:1", "h:1", "[::1]:2"]),
        ({"FLOWSTACK_ENDPOINT": "h:1"}, "g:9", ["g:9"] * 3),
        ({"FLOWSTACK_ENDPOINT": "h:1"}, {"router": "g:9"}, ["g:9", "h:1", "h:1"]),
    ],
)
def test_endpoints(variables: dict[str, str], endpoint: Any, targets: list[str]) -> None:
    found = endpoints_from(variables, endpoint)
    assert [found.router.address, found.billing.address, found.vault.address] == targets


@pytest.mark.parametrize("text", ["host", "ftp://host:1", "http://host/path", "host:port", "http://u:p@host", "://"])
def test_addresses_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="FLOWSTACK_ENDPOINT"):
        endpoints_from({"FLOWSTACK_ENDPOINT": text})


def test_a_service_that_is_down_is_named_with_its_address() -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with Agent("a", KEY, provider="echo", endpoint=address) as agent:
        with pytest.raises(flowstack.ConnectionFailedError, match="router") as caught:
            agent.chat("Hello")
        assert address in str(caught.value)
        with pytest.raises(flowstack.ConnectionFailedError, match="billing"):
            agent.get_usage()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"byok": {"api_key": "k"}}, "name it"),
        ({"provider": "openai", "byok": {}}, "lacks api_key"),
        ({"provider": "openai", "byok": {"api_key": "k", "url": "x"}}, "unknown url"),
        ({"provider": "bedrock", "byok": {"api_key": "k"}}, "lacks access_key_id"),
        ({"provider": "openai", "byok": {"api_key": ""}}, "empty"),
        ({"model": "gpt-4o"}, "needs a provider"),
    ],
)
def test_choices_that_cannot_be_are_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Agent("a", KEY, **options)


@pytest.mark.parametrize("message", ["", [{"role": "robot", "content": "x"}], [{"role": "user", "content": ""}]])
def test_messages_that_cannot_be_are_refused(message: Any) -> None:
    with Agent("a", KEY, provider="echo") as agent, pytest.raises(flowstack.InvalidRequestError):
        agent.chat(message)


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="temprature"):
        Agent("a", KEY, temprature=1)  # type: ignore[call-arg]


def test_a_closed_agent_says_so() -> None:
    agent = Agent("a", KEY, provider="echo")
    agent.close()
    agent.close()
    with pytest.raises(ConfigurationError, match="closed"):
        agent.chat("Hello")


@pytest.mark.parametrize(
    ("document", "says"),
    [([1], "dict"), ({"a": object()}, "object"), ({"a": float("nan")}, "NaN"), ({"a": "x" * 1048576}, "1,048,576")],
)
def test_documents_that_cannot_be_stored_say_why(document: Any, says: str) -> None:
    with FakeFlowStack() as fake, fake.agent() as agent:
        with pytest.raises(flowstack.InvalidRequestError, match=says):
            agent.vault.store("c", document)
        assert agent.vault.collections() == []


@pytest.mark.parametrize("sort", [[("a", 2)], [("a",)], [1], {"a": 1}])
def test_bad_sorts_say_what_a_sort_is(sort: Any) -> None:
    with (
        FakeFlowStack() as fake,
        fake.agent() as agent,
        pytest.raises(flowstack.InvalidRequestError, match="direction"),
    ):
        agent.vault.query("c", sort=sort)


def test_the_fake_is_scripted_and_keeps_no_credentials() -> None:
    with FakeFlowStack("free") as fake, fake.agent(provider="openai", byok="sk-x") as agent:
        fake.reply("First", "Second")
        assert [agent.chat("a"), agent.chat("b"), agent.chat("c")] == ["First", "Second", "c"]
        assert [request.messages[0].content[0].text for request in fake.requests] == ["a", "b", "c"]
        assert not any(request.byok for request in fake.requests)
        fake.advance(days=31)
        assert agent.get_usage().sessions_used == 0


def test_agents_share_a_channel_until_the_last_is_closed() -> None:
    from flowstack._connection import _shared

    with FakeFlowStack() as fake:
        one, other = fake.agent(), fake.agent()
        one.get_usage()
        other.get_usage()
        assert [entry.users for key, entry in _shared._channels.items() if key[2] == fake.endpoint] == [2]
        one.close()
        assert other.get_usage().sessions_used == 0
        other.close()
        assert not [key for key in _shared._channels if key[2] == fake.endpoint]


def test_the_page_names_nothing_that_is_not_there() -> None:
    import flowstack.billing as helpers

    page = "".join(path.read_text() for path in (Path(__file__).parents[1] / "page").glob("*.py"))
    assert [name for name in helpers.__all__ if name not in page] == []
