"""What sync and async agents have in common: who they are, their route, their tools, and what they note."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar, overload

from flowstack import _current
from flowstack._chat import ChatOptions, Message, check_options, complete_request, timeout_of
from flowstack._client import Client
from flowstack._connection import Connection, connection_from
from flowstack._conversation import Conversation
from flowstack._errors import ConfigurationError, InvalidRequestError, ToolDefinitionError
from flowstack._recorder import Recorder
from flowstack._routes import DEFAULT_MODEL, Route, credentials
from flowstack._secret import Secret, Unshown
from flowstack._tools import TOOLS_MAX, ToolDefinition, define
from flowstack._values import SessionInfo

NAME_BYTES_MAX: Final = 256
AGENT_LABEL: Final = "agent"
CLOSED: Final = "The agent is closed. Make another one."

F = TypeVar("F", bound=Callable[..., Any])


class Core:
    """An agent without its calls. Thread-safe.

    Args:
        name: for reports: sessions carry it as the label `agent`.
        api_key: `fs_…`; FLOWSTACK_API_KEY where None.
        provider: see Agent.
        model: likewise.
        byok: likewise.
        options: of every chat.
        endpoint: see `_endpoints`.
        record_providers: note each counted chat's provider in the vault.
    """

    def __init__(  # noqa: PLR0917  # the agents pass on what they were given, in its order
        self,
        name: str,
        api_key: Secret[str | None],
        provider: str | None,
        model: str | None,
        byok: Secret[Any],
        options: ChatOptions,
        endpoint: str | Mapping[str, str] | None,
        record_providers: bool,
    ) -> None:
        if not isinstance(name, str) or not name or len(name.encode(errors="replace")) > NAME_BYTES_MAX:
            raise ConfigurationError(f"An agent's name has to be text of 1 to {NAME_BYTES_MAX} bytes.")
        check_options(options)
        if "request_id" in options:
            raise ConfigurationError(
                "request_id belongs to one chat: with an agent's, its second chat would be taken for a repeat of the "
                "first. Give it to chat()."
            )
        for what, given in (("name", name), ("provider", provider or ""), ("model", model or "")):
            if not isinstance(given, str) or not _is_text(given):
                raise ConfigurationError(f"{what} has to be text, without half a surrogate pair; it is not.")
        self.name = name
        settings = Unshown((name, value) for name, value in os.environ.items() if name.startswith("FLOWSTACK_"))
        self.connection: Connection = connection_from(api_key, settings, endpoint)
        self._lock = threading.Lock()
        self._options = options
        provider = provider or settings.get("FLOWSTACK_PROVIDER", "")
        model = model or settings.get("FLOWSTACK_MODEL", "") or DEFAULT_MODEL
        if model != DEFAULT_MODEL and not provider:
            raise ConfigurationError(f"The model {model} needs a provider: name it with provider=.")
        self._route = Route(provider, model, credentials(provider, byok))
        self._tools: dict[str, ToolDefinition] = {}
        self._blocking: Client | None = None
        self._closed = False
        self._recorder = Recorder(self.connection) if record_providers else None
        _current.made(self)

    @property
    def route(self) -> Route:
        """The choice that the next chat goes with."""
        return self._route

    def set_provider(self, provider: str, byok: Secret[Any]) -> None:
        """Chooses a provider. The old one's key and model go with it."""
        if not isinstance(provider, str) or not provider:
            raise ConfigurationError("A provider has to be named, such as 'bedrock' or 'openai'.")
        route = Route(provider, DEFAULT_MODEL, credentials(provider, byok))
        with self._lock:
            self._route = route

    def set_model(self, model: str) -> None:
        """Chooses a model of the present provider."""
        if not isinstance(model, str) or not model:
            raise ConfigurationError("A model has to be named, such as 'gpt-4o'.")
        with self._lock:
            self._route = replace(self._route, model=model)

    def found_provider(self, provider: str) -> None:
        """Takes the operator's default, unless somebody has chosen meanwhile."""
        with self._lock:
            if not self._route.provider:
                self._route = replace(self._route, provider=provider)

    @overload
    def tool(self, function: F, /) -> F: ...
    @overload
    def tool(self, /, *, name: str | None = None, description: str | None = None) -> Callable[[F], F]: ...
    def tool(self, function: F | None = None, /, *, name: str | None = None, description: str | None = None) -> Any:
        """Registers a tool; see Agent.tool."""

        def register(wanted: F) -> F:
            definition = define(wanted, name, description)
            with self._lock:
                tools = self._tools | {definition.name: definition}
                if len(tools) > TOOLS_MAX:
                    raise ToolDefinitionError(f"An agent may have {TOOLS_MAX} tools.")
                self._tools = tools
            return wanted

        return register if function is None else register(function)

    def tools_now(self) -> Mapping[str, ToolDefinition]:
        """The tools that a chat begun now may call: none within a tool, which is what keeps that one level deep."""
        return {} if _current.in_tool() else self._tools

    def plan(self, message: Message, options: ChatOptions) -> Plan:
        """Settles what a chat asks for.

        Raises:
            InvalidRequestError: a message or option that no request can hold.
            ConfigurationError: the agent is closed.
            TypeError: an option that there is not.
        """
        check_options(options)
        if self._closed:  # said here, before there is a request with a key in it
            raise ConfigurationError(CLOSED)
        merged: ChatOptions = {**self._options, **options}
        labels = [self._options.get("labels") or {}, options.get("labels") or {}]
        if not all(isinstance(one, Mapping) for one in labels):
            raise InvalidRequestError("labels has to be a dict of text to text; it is not.")
        merged["labels"] = {AGENT_LABEL: self.name, **labels[0], **labels[1]}
        merged["request_id"] = merged.get("request_id") or uuid.uuid4().hex
        return Plan(self, self.route, message, merged, self.tools_now())

    def note(self, session: SessionInfo) -> None:
        """Notes a counted chat."""
        if self._recorder is not None:
            self._recorder.note(
                session.session_id,
                provider=session.provider,
                model=session.model,
                credential_mode=session.credential_mode,
                agent=self.name,
            )

    def flush(self) -> None:
        """Waits for the notes; see Recorder.flush."""
        if self._recorder is not None:
            self._recorder.flush()

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed

    def blocking(self) -> Client:
        """A client for blocking calls: the recorder's and the helpers'."""
        with self._lock:
            if self._closed:
                raise ConfigurationError(CLOSED)
            if self._blocking is None:
                self._blocking = Client(self.connection)
            return self._blocking

    def close(self) -> None:
        """Stores what was noted, and lets go of the channels. Repeatable."""
        if self._recorder is not None:
            self._recorder.close()
        with self._lock:
            self._closed = True
            blocking, self._blocking = self._blocking, None
        if blocking is not None:
            blocking.close()


def _is_text(given: str) -> bool:
    try:
        given.encode()
    except UnicodeEncodeError:
        return False
    return True


class Plan:
    """One chat to be: it stays what it is whatever is set on the agent meanwhile."""

    def __init__(
        self, core: Core, route: Route, message: Message, options: ChatOptions, tools: Mapping[str, ToolDefinition]
    ) -> None:
        self.core = core
        self.tools = tools
        self.request_id = options["request_id"]
        self.timeout_s = timeout_of(options)
        self.request = complete_request(route, message, options, tools.values())

    def note_failed(self, conversation: Conversation, session_id: str = "") -> None:
        """Notes a session that did not come to its end and was counted all the same."""
        self.core.note(conversation.unfinished(session_id or conversation.session_id))
