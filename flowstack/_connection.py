"""Who calls and where, and the channels that every agent of a process shares."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from flowstack._endpoints import Endpoint, Endpoints, endpoints_from
from flowstack._errors import ConfigurationError
from flowstack._secret import Secret

CONNECT_SECONDS: Final = 5.0
SESSION_SECONDS: Final = 310.0
"""The router's ceiling of 300 s and a margin, so that the router is the one to say so."""
CALL_SECONDS: Final = 30.0
KEEPALIVE_SECONDS = 20.0
"""So long after it last heard from a service it asks whether that is still there, while a call waits. Services allow
5 s; servers of others on the way may not, and then gRPC asks less often."""
KEEPALIVE_ANSWER_SECONDS = 10.0
"""Without an answer in this time the connection is dead, and its calls fail."""
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
KEY_SETTING: Final = "FLOWSTACK_API_KEY"

_KEY: Final = re.compile(r"fs_[0-9A-Za-z_-]{8,253}")
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Connection:
    """A key and the addresses that it is used at.

    Attributes:
        endpoints: where the services are.
        metadata: what goes along with each call; it holds the key, so it is never shown.
    """

    endpoints: Endpoints
    metadata: Metadata = field(repr=False)


def connection_from(
    api_key: Secret[str | None] | str | None,
    environment: Mapping[str, str],
    endpoint: str | Mapping[str, str] | None = None,
) -> Connection:
    """Checks a customer's key and the addresses.

    Raises:
        ConfigurationError: no key, one that cannot be a key, or a bad address.
    """
    api_key = api_key if isinstance(api_key, Secret) else Secret(api_key)
    key: Secret[Any] = api_key or Secret(environment.get(KEY_SETTING, ""))
    if not key:
        raise ConfigurationError(
            f"There is no API key. Give api_key=, or set {KEY_SETTING}. The operator makes the first one with "
            "`flowstack admin accounts create --key`, and it makes others with `flowstack keys create`."
        )
    if not isinstance(key.reveal(), str) or not _KEY.fullmatch(key.reveal()):
        raise ConfigurationError(
            "The API key is malformed: it has to be `fs_` and the letters and digits behind it, copied whole, "
            "without spaces or quotes."
        )
    return Connection(endpoints_from(environment, endpoint), (("authorization", f"Bearer {key.reveal()}"),))


class _Entry:
    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.users = 0


class _Shared:
    """Channels by what they lead to, closed with their last user. gRPC channels are thread-safe.

    A finalizer may let go of a channel in the middle of either method, in the same thread: hence the reentrant lock,
    and hence each looks again at what it has changed.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._channels: dict[Any, _Entry] = {}

    def acquire(self, key: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            while True:
                entry = self._channels.get(key) or self._channels.setdefault(key, _Entry(make()))
                entry.users += 1
                if self._channels.get(key) is entry:
                    return entry.channel

    def release(self, key: Any) -> Any | None:
        """The channel, where nobody uses it any more and it is to be closed."""
        with self._lock:
            entry = self._channels[key]
            entry.users -= 1
            unused = entry.users == 0 and self._channels.pop(key, None) is not None
            return entry.channel if unused else None


_shared: Final = _Shared()


class Channels:
    """One user's hold on the sync channels. Opened where first used."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._lock = threading.Lock()
        self._held: dict[Any, grpc.Channel] = {}
        self._closed = False
        weakref.finalize(self, _let_go, self._held).atexit = False

    def get(self, endpoint: Endpoint) -> grpc.Channel:
        """The channel to an endpoint.

        Raises:
            ConfigurationError: closed already.
        """
        # A channel does not survive a fork: a child process gets channels of its own.
        key = ("sync", os.getpid(), endpoint.target, endpoint.tls, endpoint.authority)
        channel = self._held.get(key)
        if channel is None or self._closed:
            with self._lock:
                if self._closed:
                    raise ConfigurationError("The agent is closed. Make another one.")
                if key not in self._held:
                    self._held[key] = _shared.acquire(key, lambda: _open(grpc, endpoint))
                channel = self._held[key]
        return channel

    def close(self) -> None:
        """Lets go of the channels. Repeatable."""
        with self._lock:
            self._closed = True
            _let_go(self._held)


def _let_go(held: dict[Any, Any]) -> None:
    while held:
        key, _ = held.popitem()
        channel = _shared.release(key)
        if channel is not None and key[0] == "sync":
            channel.close()  # one of grpc.aio closes itself when nobody has it any more


class AsyncChannels:
    """The same over grpc.aio, whose channels belong to an event loop."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._held: dict[Any, grpc.aio.Channel] = {}
        self._closed = False
        weakref.finalize(self, _let_go, self._held).atexit = False

    def get(self, endpoint: Endpoint) -> grpc.aio.Channel:
        """The channel to an endpoint, in the running loop.

        Raises:
            ConfigurationError: closed already.
        """
        if self._closed:
            raise ConfigurationError("The agent is closed. Make another one.")
        key = ("aio", asyncio.get_running_loop(), endpoint.target, endpoint.tls, endpoint.authority)
        if key not in self._held:
            _let_go({ended: self._held.pop(ended) for ended in list(self._held) if ended[1].is_closed()})
            self._held[key] = _shared.acquire(key, lambda: _open(grpc.aio, endpoint))
        return self._held[key]

    async def close(self) -> None:
        """Lets go of the channels. Repeatable."""
        self._closed = True
        while self._held:
            key, _ = self._held.popitem()
            channel = _shared.release(key)
            if channel is not None and key[1] is asyncio.get_running_loop():
                await channel.close()


def _open(library: Any, endpoint: Endpoint) -> Any:
    if endpoint.tls:
        credentials = grpc.ssl_channel_credentials(endpoint.authority)
        return library.secure_channel(endpoint.target, credentials, options=_options())
    return library.insecure_channel(endpoint.target, options=_options())


def _options() -> list[tuple[str, int]]:
    return [
        ("grpc.min_reconnect_backoff_ms", int(CONNECT_SECONDS * 1000)),  # how long one attempt to connect may take
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5000),
        ("grpc.keepalive_time_ms", int(KEEPALIVE_SECONDS * 1000)),
        ("grpc.keepalive_timeout_ms", int(KEEPALIVE_ANSWER_SECONDS * 1000)),
        ("grpc.http2.ping_timeout_ms", int(KEEPALIVE_ANSWER_SECONDS * 1000)),  # a minute otherwise, whatever that says
        ("grpc.http2.max_pings_without_data", 0),  # a watch may be quiet for long
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.enable_retries", 0),  # the SDK retries by request_id, and says so
    ]
