"""What Agent and AsyncAgent have in common: everything that makes no call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Unpack, overload

from flowstack._chat import ChatOptions
from flowstack._connection import Connection
from flowstack._core import Core, F
from flowstack._secret import Secret


class BaseAgent(ABC):
    """An agent's name, route and tools. See Agent for the arguments."""

    def __init__(
        self,
        name: str,
        api_key: str | None = None,
        *,
        provider: str | None = None,
        model: str | None = None,
        byok: Mapping[str, Any] | str | None = None,
        endpoint: str | Mapping[str, str] | None = None,
        record_providers: bool = True,
        **options: Unpack[ChatOptions],
    ) -> None:
        # From here on no frame has a key among its variables that an error reporter could send.
        api_key, byok = Secret(api_key), Secret(byok)  # type: ignore[assignment]
        self._core = Core(name, api_key, provider, model, byok, options, endpoint, record_providers)  # type: ignore[arg-type]
        self._connect(self._core.connection)

    @abstractmethod
    def _connect(self, connection: Connection) -> None:
        """Makes the client, and what of the agent calls through it."""

    @property
    def name(self) -> str:
        """The agent's name."""
        return self._core.name

    @property
    def provider(self) -> str:
        """The provider that the next chat asks; empty for the operator's default, before the first chat."""
        return self._core.route.provider

    @property
    def model(self) -> str:
        """The model that the next chat asks."""
        return self._core.route.model

    @overload
    def tool(self, function: F, /) -> F: ...
    @overload
    def tool(self, /, *, name: str | None = None, description: str | None = None) -> Callable[[F], F]: ...
    def tool(self, function: F | None = None, /, *, name: str | None = None, description: str | None = None) -> Any:
        """Decorates a function that the model may call; the function itself stays as it is.

        Its schema comes from the type hints, its description and those of its parameters from the docstring. What it
        raises is told to the model, not to the caller of `chat`. It has 60 s, the router's limit. One of the same name
        takes the earlier one's place.

        Raises:
            ToolDefinitionError: a signature that a model cannot call, or types that JSON cannot express.
        """
        if function is None:
            return self._core.tool(name=name, description=description)
        return self._core.tool(function)

    def set_provider(self, provider: str, byok: Mapping[str, Any] | str | None = None) -> None:
        """Chooses the provider of later chats, with its default model. The old provider's key is dropped.

        Raises:
            ConfigurationError: byok that does not fit the provider.
        """
        byok = Secret(byok)  # type: ignore[assignment]  # as above
        self._core.set_provider(provider, byok)  # type: ignore[arg-type]

    def set_model(self, model: str) -> None:
        """Chooses the model of later chats."""
        self._core.set_model(model)

    def __repr__(self) -> str:
        if not hasattr(self, "_core"):  # its construction failed
            return f"<{type(self).__name__} that was not made>"
        return f"{type(self).__name__}({self.name!r}, provider={self.provider!r}, model={self.model!r})"
