"""Makes the providers that the operator's file names, each with the operator's own credentials."""

from __future__ import annotations

from dataclasses import replace

from services.router.catalog import Model, ProviderEntry
from services.router.config import RouterSettings, operator_secret
from services.router.domain.request import AnthropicCredentials, BedrockCredentials, OpenAiCredentials
from services.router.providers import anthropic, openai
from services.router.providers.anthropic import AnthropicProvider, AnthropicSettings
from services.router.providers.aws import BotoCredentials, FixedCredentials, ManagedCredentials, endpoint_of
from services.router.providers.bedrock import BedrockProvider, BedrockSettings
from services.router.providers.echo import EchoProvider
from services.router.providers.openai import OpenAiProvider, OpenAiSettings
from services.router.providers.port import Provider
from services.router.providers.traits import ModelTraits, Reasoning
from services.shared.secret import Secret
from services.shared.settings import StartupError

Managed = OpenAiCredentials | AnthropicCredentials | ManagedCredentials


def with_settings(entry: ProviderEntry, settings: RouterSettings) -> ProviderEntry:
    """What the catalogue says, with the settings that take its place.

    Raises:
        StartupError: AWS has no such region.
    """
    for region in entry.regions:
        try:
            endpoint_of(region)
        except ValueError as error:
            raise StartupError(f"The providers file is not valid: providers.{entry.name}.regions: {error}.") from None
    addresses = {
        "openai": settings.openai_base_url,
        "anthropic": settings.anthropic_base_url,
        "bedrock": settings.bedrock_endpoint_url,
    }
    if address := addresses.get(entry.name):
        # Which models there are is that server's affair.
        return replace(entry, base_url=address, any_model=True)
    return entry


def operators_credentials(entry: ProviderEntry) -> Managed | None:
    """The operator's own credentials; None where there are none.

    Raises:
        StartupError: what is set is not a key, half of a pair, or its file cannot be read.
    """
    if entry.kind == "bedrock":
        return _aws(entry)
    if entry.kind == "echo" or not entry.managed_api_key_env:
        return None
    key = operator_secret(entry.managed_api_key_env)
    if key is None:
        return None
    return OpenAiCredentials(key) if entry.kind == "openai" else AnthropicCredentials(key)


def _aws(entry: ProviderEntry) -> ManagedCredentials | None:
    if entry.managed_aws_credentials == "boto3":
        return BotoCredentials()
    if entry.managed_aws_credentials != "environment":
        return None
    key_id, key = operator_secret("AWS_ACCESS_KEY_ID"), operator_secret("AWS_SECRET_ACCESS_KEY")
    if key_id is None and key is None:
        return None
    if key_id is None or key is None:
        raise StartupError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together: set both or neither.")
    token = operator_secret("AWS_SESSION_TOKEN") or Secret("")
    return FixedCredentials(BedrockCredentials(key_id, key, token))


def make_provider(entry: ProviderEntry, managed: Managed | None) -> Provider:
    """The provider of `entry`, which has passed with_settings; to be called inside the event loop."""
    models = {model.name: _traits(model) for model in entry.models.values()}
    if entry.kind == "openai":
        return OpenAiProvider(
            OpenAiSettings(
                base_url=entry.base_url or openai.DEFAULT_BASE_URL,
                managed=managed if isinstance(managed, OpenAiCredentials) else None,
                max_tokens_field=entry.max_tokens_field,
                include_usage=entry.include_usage,
                models=models,
            )
        )
    if entry.kind == "anthropic":
        return AnthropicProvider(
            AnthropicSettings(
                base_url=entry.base_url or anthropic.DEFAULT_BASE_URL,
                managed=managed if isinstance(managed, AnthropicCredentials) else None,
                models=models,
            )
        )
    if entry.kind == "bedrock":
        of_aws = None if isinstance(managed, OpenAiCredentials | AnthropicCredentials) else managed
        return BedrockProvider(BedrockSettings(entry.regions, entry.base_url, of_aws, models))
    return EchoProvider()


def _traits(model: Model) -> ModelTraits:
    return ModelTraits(
        max_output_tokens=model.max_output_tokens,
        images="image" in model.input_modalities,
        reasoning=Reasoning(model.reasoning) if model.reasoning else None,
        sampling=model.sampling,
    )
