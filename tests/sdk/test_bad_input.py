"""What a user gets wrong is answered with a sentence that says what, and what to do: read here as a user reads it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from flowstack import (
    Agent,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidRequestError,
    ModelNotFoundError,
    ToolDefinitionError,
)
from tests.sdk.conftest import Platform
from tests.support.suite import free_ports

KEY = "fs_" + "0" * 75


@pytest.fixture
def agent(platform: Platform) -> Iterator[Agent]:
    with platform.agent() as made:
        yield made


def sentence(kind: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWSTACK_API_KEY", raising=False)
    for key in (None, ""):
        assert sentence(ConfigurationError, lambda key=key: Agent("a", key)) == (
            "There is no API key. Give api_key=, or set FLOWSTACK_API_KEY. The operator makes the first one with "
            "`flowstack admin accounts create --key`, and it makes others with `flowstack keys create`."
        )


@pytest.mark.parametrize(
    "key", ["sk-not-ours-0123456789", "fs_", "fs_with a space", "'fs_01234567890'", "fs_ключ-ключ"]
)
def test_a_malformed_key(key: str) -> None:
    said = sentence(ConfigurationError, lambda: Agent("a", key))
    assert said == (
        "The API key is malformed: it has to be `fs_` and the letters and digits behind it, copied whole, without "
        "spaces or quotes."
    )


def test_a_key_that_nobody_has(platform: Platform) -> None:
    with Agent("a", KEY, provider="echo", endpoint=platform.endpoint) as agent:
        said = {
            sentence(AuthenticationError, call)
            for call in (lambda: agent.chat("Hello"), agent.get_usage, lambda: agent.vault.retrieve("c", "k"))
        }
    for one in said:
        assert "API key" in one
        assert KEY not in one


@pytest.mark.parametrize("service", ["router", "billing", "vault"])
def test_a_service_that_is_down(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, Callable[[Agent], Any]] = {
        "router": lambda agent: agent.chat("Hello"),
        "billing": lambda agent: agent.get_usage(),
        "vault": lambda agent: agent.vault.collections(),
    }
    address = f"127.0.0.1:{free_ports(1)[0]}"
    setting = f"FLOWSTACK_{service.upper()}_ENDPOINT"
    monkeypatch.setenv(setting, address)
    with Agent("a", KEY, provider="echo") as agent:
        assert sentence(ConnectionFailedError, lambda: calls[service](agent)) == (
            f"FlowStack's {service} service cannot be reached at {address}. Check that it runs (`flowstack doctor`, or "
            f"`make run` on your own machine) and that {setting} names it."
        )


@pytest.mark.parametrize(
    ("provider", "model", "says"),
    [
        ("ecko", "echo-1", "That provider is not configured here. Did you mean echo? Configured: "),
        ("echo", "echo-2", "The provider echo has no such model here. Did you mean echo-1? "),
    ],
)
def test_unknown_providers_and_models(platform: Platform, provider: str, model: str, says: str) -> None:
    with platform.agent(provider=provider, model=model) as agent:
        assert sentence(ModelNotFoundError, lambda: agent.chat("Hello")).startswith(says)
        assert agent.get_usage().sessions_used == 0


class Odd:
    """A type that JSON has not."""


def any_number(*numbers: int) -> None: ...
def any_name(**named: int) -> None: ...
def by_position(number: int, /) -> None: ...
def of_odd_type(fine: int, odd: Odd) -> None: ...
def of_a_type_that_is_not_there(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def one_after_another() -> Generator[int, None, None]:
    yield 1


NAMED = (
    "a model gives arguments by name, so the parameter {} cannot be positional-only, *args or **kwargs. Name each "
    "parameter."
)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (any_number, NAMED.format("numbers")),
        (any_name, NAMED.format("named")),
        (by_position, NAMED.format("number")),
        (
            of_odd_type,
            "JSON cannot express the type or the default of the parameter odd. Use text, finite numbers, booleans, "
            "lists, dicts, enums, dataclasses or pydantic models.",
        ),
        (of_a_type_that_is_not_there, "its signature cannot be read. (name 'Nowhere' is not defined)"),
        (one_after_another, "a tool returns one result; it cannot be a generator."),
    ],
)
def test_tools_with_an_unsupported_signature(function: Callable[..., Any], says: str) -> None:
    with Agent("a", KEY) as agent:
        assert sentence(ToolDefinitionError, lambda: agent.tool(function)) == f"Tool {function.__name__}: {says}"
        decorate = agent.tool(name="other")
        assert sentence(ToolDefinitionError, lambda: decorate(function)) == f"Tool other: {says}"


def test_a_tool_without_a_name_that_a_model_can_write() -> None:
    with Agent("a", KEY) as agent:
        assert sentence(ToolDefinitionError, lambda: agent.tool(lambda: 1)) == (
            "A tool's name has to be 1 to 64 letters, digits, _ or -; '<lambda>' is not."
        )


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"a": object()}, "object has no form in JSON; make it text, a number, a list or a dict."),
        ({"a": [{"b": {1, 2}}]}, "set has no form in JSON; make it text, a number, a list or a dict."),
        ({"a": float("inf")}, "NaN and infinity are no JSON numbers."),
    ],
)
def test_documents_that_json_cannot_express(agent: Agent, document: Any, says: str) -> None:
    said = sentence(InvalidRequestError, lambda: agent.vault.store("c", document, key="k"))
    assert said == f"The document cannot be stored: {says}"
    assert agent.vault.retrieve("c", "k") is None


def test_what_is_no_document(agent: Agent) -> None:
    assert sentence(InvalidRequestError, lambda: agent.vault.store("c", [1])) == (  # type: ignore[arg-type]
        "A document has to be a dict, not list: {'value': …} would do."
    )


def test_an_oversized_document(agent: Agent) -> None:
    most = 1_048_576 - len('{"a":""}')
    assert sentence(InvalidRequestError, lambda: agent.vault.store("c", {"a": "x" * (most + 1)}, key="k")) == (
        "The document has 1,048,577 bytes; 1,048,576 are allowed. Split it, or leave something out."
    )
    assert agent.vault.store("c", {"a": "x" * most}, key="k").version == 1


@pytest.mark.parametrize("sort", [[("a", 2)], [("a",)], [("", 1)], [1], {"a": 1}, "-", [(1, 1)], [("a", "up")]])
def test_bad_sorts(agent: Agent, sort: Any) -> None:
    assert sentence(InvalidRequestError, lambda: agent.vault.query("c", sort=sort)) == (
        "sort has to be a list of (field, direction) with direction 1 or -1, such as [('timestamp', -1)], or a field's "
        "name, with - before it for descending."
    )


def test_sorts_that_the_vault_refuses(agent: Agent) -> None:
    twice = sentence(InvalidRequestError, lambda: agent.vault.query("c", sort=[("a", 1), ("a", -1)]))
    assert twice == "The request is invalid: sort: each field may be named once."
    many = sentence(InvalidRequestError, lambda: agent.vault.query("c", sort=[(f"f{n}", 1) for n in range(9)]))
    assert many == "The request is invalid: sort: must contain no more than 8 item(s)."
