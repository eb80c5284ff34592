"""A completion request as the router's own code sees it, whatever the provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from services.shared.secret import Secret


class Role(Enum):
    """Who said a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image as bytes."""

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """A call that the model made earlier. `arguments_json` is a JSON object as text."""

    id: str
    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """What a tool answered to the call `tool_call_id`."""

    tool_call_id: str
    content: str
    is_error: bool = False


Part = TextPart | ImagePart | ToolCallPart | ToolResultPart


@dataclass(frozen=True, slots=True)
class NativeContent:
    """What the model said in one round of a tool loop, word for word in a provider's own format.

    Kept where the answer holds what no Part can: reasoning that its provider has signed and wants back unchanged.
    """

    format: str
    """Which provider's format: only that one can read it."""
    content_json: bytes = field(repr=False)
    """The content blocks: a JSON array."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation."""

    role: Role
    parts: tuple[Part, ...]
    native: NativeContent | None = None
    """The same as `parts` and more, for the provider that said it. Never set by a caller."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may call. An empty schema means an object without properties."""

    name: str
    description: str = ""
    input_schema_json: str = ""


class ToolChoiceMode(Enum):
    """How the model chooses tools."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Limits the model's choice. `parallel` None leaves it to the provider's default."""

    mode: ToolChoiceMode = ToolChoiceMode.AUTO
    tool_name: str = ""
    parallel: bool | None = None


class ReasoningEffort(Enum):
    """How much the model should reason before it answers."""

    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class CredentialMode(Enum):
    """Whose credentials a provider call is made with."""

    MANAGED = "managed"
    BYOK = "byok"


@dataclass(frozen=True, slots=True)
class OpenAiCredentials:
    """A key for OpenAI or a server that speaks its protocol. Empty strings mean: the key's own."""

    api_key: Secret
    organization: str = ""
    project: str = ""


@dataclass(frozen=True, slots=True)
class AnthropicCredentials:
    """A key for Anthropic."""

    api_key: Secret


@dataclass(frozen=True, slots=True)
class BedrockCredentials:
    """AWS credentials. An empty region means the operator's default."""

    access_key_id: Secret
    secret_access_key: Secret
    session_token: Secret
    region: str = ""


Credentials = OpenAiCredentials | AnthropicCredentials | BedrockCredentials


@dataclass(frozen=True, slots=True)
class Candidate:
    """One provider and model that may serve the request; `model` is the provider's own name for it."""

    provider: str
    model: str
    credential_mode: CredentialMode
    credentials: Credentials | None = field(default=None, repr=False)
    has_credentials: bool = True
    """False where neither the caller nor the operator has any: it can be put to quota, never to its provider."""
    max_output_tokens: int | None = None
    """The most that the model gives in one answer; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a provider is asked, whichever provider it is.

    Everything that is None or empty was left out by the caller: the provider's default holds.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: tuple[str, ...] = ()
    response_schema_json: str | None = None
    reasoning_effort: ReasoningEffort | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """A provider and model as the caller named them; the model may be an alias."""

    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A request as it came in: what to ask, whom (first choice, then fallbacks), and with whose credentials."""

    prompt: Prompt
    choices: tuple[Choice, ...]
    credentials: tuple[Credentials, ...] = field(default=(), repr=False)
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Customer:
    """Who asks: the account that pays, and the API key that it came with."""

    account_id: str
    api_key_id: str = ""
