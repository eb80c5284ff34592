"""Whose credentials a candidate runs on."""

from __future__ import annotations

import pytest

from services.router.catalog import Catalog, Model, ProviderEntry
from services.router.domain.request import (
    AnthropicCredentials,
    Candidate,
    Choice,
    CompletionRequest,
    CredentialMode,
    Message,
    OpenAiCredentials,
    Prompt,
    Role,
    TextPart,
)
from services.router.lineup import Lineup
from services.router.providers.echo import EchoProvider
from services.shared.errors import FlowStackError, Reason, invalid_request
from services.shared.secret import Secret

KEY = OpenAiCredentials(Secret("sk-x"))
CATALOG = Catalog(
    {
        "echo": ProviderEntry("echo", "echo", models={"echo-1": Model("echo-1")}),
        **{name: ProviderEntry(name, "openai", any_model=True) for name in ("openai", "groq", "vllm")},
    }
)
# What is looked at here does not depend on which provider stands behind a name.
LINEUP = Lineup(CATALOG, dict.fromkeys(CATALOG.providers, EchoProvider()), frozenset({"vllm"}))
MANAGED, BYOK = CredentialMode.MANAGED, CredentialMode.BYOK


def request(*choices: str, credentials: tuple[OpenAiCredentials | AnthropicCredentials, ...] = ()) -> CompletionRequest:
    prompt = Prompt((Message(Role.USER, (TextPart("x"),)),))
    named = tuple(Choice(name, "echo-1") for name in choices)
    return CompletionRequest(prompt, named, credentials)


def test_a_candidate_knows_what_its_model_can_give() -> None:
    listed = {"m": Model("m", max_output_tokens=4096), "n": Model("n")}
    lineup = Lineup(
        Catalog({"openai": ProviderEntry("openai", "openai", any_model=True, models=listed)}),
        {"openai": EchoProvider()},
        frozenset(),
    )
    prompt = Prompt((Message(Role.USER, (TextPart("x"),)),))
    choices = tuple(Choice("openai", name) for name in ("m", "n", "other"))
    candidates = lineup.candidates(CompletionRequest(prompt, choices, (KEY,)))

    assert [candidate.max_output_tokens for candidate in candidates] == [4096, None, None]


@pytest.mark.parametrize(
    ("choices", "modes"),
    [
        (("openai",), {"openai": BYOK}),
        (("groq",), {"groq": BYOK}),
        (("openai", "vllm"), {"openai": BYOK, "vllm": MANAGED}),
        (("vllm", "openai"), {"openai": BYOK, "vllm": MANAGED}),
        (("echo", "openai"), {"echo": BYOK, "openai": BYOK}),
    ],
)
def test_a_key_goes_to_one_provider(choices: tuple[str, ...], modes: dict[str, CredentialMode]) -> None:
    candidates = LINEUP.candidates(request(*choices, credentials=(KEY,)))

    assert [candidate.provider for candidate in candidates] == list(choices)
    assert {c.provider: c.credential_mode for c in candidates} == modes
    for candidate in candidates:
        given = candidate.credential_mode is BYOK and candidate.provider != "echo"
        assert candidate.credentials == (KEY if given else None)


def test_a_key_that_could_be_meant_for_two_is_sent_to_neither() -> None:
    with pytest.raises(FlowStackError) as caught:
        LINEUP.candidates(request("groq", "vllm", credentials=(KEY,)))
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_a_key_for_another_protocol_changes_nothing() -> None:
    (candidate,) = LINEUP.candidates(request("vllm", credentials=(AnthropicCredentials(Secret("x")),)))
    assert candidate.credential_mode is MANAGED


def test_echo_needs_none_and_counts_as_the_callers_own() -> None:
    (candidate,) = LINEUP.candidates(request("echo"))
    assert (candidate.credential_mode, candidate.credentials) == (BYOK, None)


def test_without_anybodys_credentials() -> None:
    served, lacking = LINEUP.candidates(request("vllm", "openai"))

    assert (served.credential_mode, served.has_credentials) == (MANAGED, True)
    assert (lacking.credential_mode, lacking.has_credentials) == (MANAGED, False)


@pytest.mark.parametrize(
    ("choices", "named", "candidate"),
    [
        (("echo", "refusing"), "fallbacks[0], at refusing", "1"),
        (("refusing", "echo"), "the first choice, at refusing", "0"),
        (("refusing",), "", None),
    ],
)
@pytest.mark.parametrize("at", ["check", "catalogue"])
def test_a_refusal_says_which_candidate_it_is_about(
    choices: tuple[str, ...], named: str, candidate: str | None, at: str
) -> None:
    class Refusing(EchoProvider):
        def check(self, _candidate: Candidate, _prompt: Prompt) -> None:
            raise invalid_request("temperature", "is not taken")

    known = {"echo-1": Model("echo-1")} if at == "check" else {}
    catalog = Catalog({**CATALOG.providers, "refusing": ProviderEntry("refusing", "openai", models=known)})
    lineup = Lineup(catalog, {**LINEUP.providers, "refusing": Refusing()}, frozenset())
    with pytest.raises(FlowStackError) as caught:
        lineup.candidates(request(*choices))

    error = caught.value
    assert error.reason is (Reason.INVALID_REQUEST if at == "check" else Reason.MODEL_NOT_FOUND)
    assert [v.field for v in error.violations] == (["temperature"] if at == "check" else [])
    assert error.metadata.get("candidate") == candidate
    assert ("This is about" in error.message) is bool(named)
    assert named in error.message


def test_a_credential_is_never_shown() -> None:
    asked = request("openai", credentials=(KEY,))
    assert "sk-x" not in repr(asked)
    assert "sk-x" not in repr(LINEUP.candidates(asked))
