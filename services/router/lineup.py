"""The providers that are configured, ready to be called, and the choice among them for one request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from services.router.catalog import Catalog, ProviderEntry
from services.router.domain.request import (
    AnthropicCredentials,
    BedrockCredentials,
    Candidate,
    Choice,
    CompletionRequest,
    CredentialMode,
    Credentials,
    OpenAiCredentials,
)
from services.router.providers.port import Provider
from services.shared.errors import FlowStackError, invalid_request

_KIND_OF: Final[dict[type[Credentials], str]] = {
    OpenAiCredentials: "openai",
    AnthropicCredentials: "anthropic",
    BedrockCredentials: "bedrock",
}


@dataclass(frozen=True, slots=True)
class Lineup:
    """A catalogue and its providers. A reload makes a new one; sessions keep the one that they began with."""

    catalog: Catalog
    providers: Mapping[str, Provider]
    managed: frozenset[str]
    """The providers for which the operator has credentials, or that need none."""

    def candidates(self, request: CompletionRequest) -> tuple[Candidate, ...]:
        """Who may serve `request`: first choice, then fallbacks, each with the credentials that it would use.

        One for which nobody has credentials is named all the same: what quota has to say of the request, a repeat or a
        block, comes before that. A provider or model that is not in the catalogue cannot be put to quota.

        Raises:
            FlowStackError: MODEL_NOT_FOUND; INVALID_REQUEST where a credential could be meant for two providers, or a
                provider cannot do what is asked. Of several candidates it says which one it is about.
        """
        choices = request.choices
        found = []
        for position, choice in enumerate(choices):
            with _named(position, choice, len(choices)):
                found.append(self.catalog.find(choice))
        owners = self._owners([entry for entry, _ in found], request.credentials)
        candidates = tuple(self._candidate(entry, model, owners.get(entry.name)) for entry, model in found)
        for position, candidate in enumerate(candidates):
            with _named(position, choices[position], len(choices)):
                self.providers[candidate.provider].check(candidate, request.prompt)
        return candidates

    async def aclose(self) -> None:
        """Closes every provider's connections."""
        for provider in self.providers.values():
            await provider.aclose()

    def _owners(self, entries: list[ProviderEntry], credentials: tuple[Credentials, ...]) -> dict[str, Credentials]:
        """Which provider each of the caller's credentials is for.

        Several providers can speak one protocol. A key goes to the one that bears the protocol's name, else to the
        only one that speaks it; it is never sent to two, because one of them would learn the other's.
        """
        owners: dict[str, Credentials] = {}
        for credential in credentials:
            kind = _KIND_OF[type(credential)]
            names = {entry.name for entry in entries if entry.kind == kind}
            if kind in names:
                names = {kind}
            if len(names) > 1:
                raise invalid_request(
                    "byok", f"the {kind} credentials could be meant for each of {', '.join(sorted(names))}; ask for one"
                )
            owners |= dict.fromkeys(names, credential)
        return owners

    def _candidate(self, entry: ProviderEntry, model: str, credentials: Credentials | None) -> Candidate:
        listed = entry.models.get(model)
        most = listed.max_output_tokens if listed else None
        if credentials is not None or entry.kind == "echo":
            return Candidate(entry.name, model, CredentialMode.BYOK, credentials, max_output_tokens=most)
        return Candidate(
            entry.name,
            model,
            CredentialMode.MANAGED,
            has_credentials=entry.name in self.managed,
            max_output_tokens=most,
        )


@contextmanager
def _named(position: int, choice: Choice, choices: int) -> Iterator[None]:
    """Says of a refusal which of several candidates it is about, in its text and as `candidate` in its metadata."""
    try:
        yield
    except FlowStackError as error:
        if choices == 1:
            raise
        field = f"fallbacks[{position - 1}]" if position else "the first choice"
        raise FlowStackError(
            error.reason,
            f"{error.message} This is about {field}, at {choice.provider}.",
            metadata={**error.metadata, "candidate": str(position)},
            violations=error.violations,
            retry_after=error.retry_after,
        ) from None
