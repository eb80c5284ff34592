"""The keys that tests plant, to find nothing of them afterwards, and the credentials and candidates with them."""

from __future__ import annotations

from collections.abc import Sequence

from flowstack_protos.router.v1 import router_service_pb2 as pb

from services.router.domain.request import (
    AnthropicCredentials,
    BedrockCredentials,
    Candidate,
    CredentialMode,
    Credentials,
    OpenAiCredentials,
)
from services.shared.secret import Secret

BYOK = {
    "openai": ("sk-planted-byok-0123456789abcdefghijklmnop",),
    "anthropic": ("sk-ant-api03-planted-byok-0123456789abcdefghijklmnop",),
    # An id, a key and a session token, in the shapes of AWS's.
    "bedrock": (
        "ASIAPLANTEDBYOK01234",
        "planted/byok+0123456789abcdefghijklmnopq",
        "IQoJb3JpZ2luX2VjPlantedByok0123456789/+abcdefghijklmnopqrstuvwxyz==",
    ),
}
MANAGED = {
    "openai": ("sk-planted-managed-0123456789abcdefghijkl",),
    "anthropic": ("sk-ant-api03-planted-managed-0123456789abcdefghijkl",),
    "bedrock": ("AKIAPLANTEDMANAGED01", "planted/managed+0123456789abcdefghijklmno", ""),
}
PLANTED = tuple(key for keys in (*BYOK.values(), *MANAGED.values()) for key in keys if key)


def credentials_of(name: str, keys: Sequence[str]) -> Credentials:
    """Credentials for the provider `name`."""
    secrets = [Secret(key) for key in keys]
    if name == "openai":
        return OpenAiCredentials(secrets[0])
    return AnthropicCredentials(secrets[0]) if name == "anthropic" else BedrockCredentials(*secrets)


def byok_of(name: str) -> pb.ByokCredentials:
    """The caller's credentials as a request carries them."""
    keys = BYOK[name]
    if name == "openai":
        return pb.ByokCredentials(openai=pb.OpenAiCredentials(api_key=keys[0]))
    if name == "anthropic":
        return pb.ByokCredentials(anthropic=pb.AnthropicCredentials(api_key=keys[0]))
    id_, key, token = keys
    aws = pb.BedrockCredentials(access_key_id=id_, secret_access_key=key, session_token=token)
    return pb.ByokCredentials(bedrock=aws)


def candidate(name: str, model: str, keys: Sequence[str] | None = None) -> Candidate:
    """A candidate on the caller's own credentials."""
    return Candidate(name, model, CredentialMode.BYOK, credentials_of(name, keys or BYOK[name]))


def managed_candidate(name: str, model: str) -> Candidate:
    """A candidate on the operator's."""
    return Candidate(name, model, CredentialMode.MANAGED)
