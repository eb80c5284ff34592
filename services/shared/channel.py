"""Channels from one service to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc

from services.shared.auth import AUTHORIZATION
from services.shared.secret import Secret
from services.shared.settings import CommonSettings
from services.shared.tls import channel_credentials

OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)
"""Keepalive that the servers' minimum allows, and quick reconnects: a peer on the same network is back within
seconds or not at all. Without a ping timeout gRPC gives an answer a minute, whatever the keepalive timeout says."""

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ServiceChannel:
    """A channel to another service, and the metadata that proves to it who calls."""

    channel: grpc.aio.Channel
    metadata: Metadata

    async def close(self) -> None:
        """Closes the channel; calls on it are cancelled."""
        await self.channel.close()


def connect(address: str, settings: CommonSettings, token: Secret | None = None) -> ServiceChannel:
    """Opens a channel to the service at `address`; it connects by itself, at once or later.

    Args:
        address: where.
        settings: the caller's.
        token: what proves the caller; the internal token unless told.

    Raises:
        StartupError: secrets or certificates are missing.
    """
    token = settings.internal_tokens()[0] if token is None else token
    metadata = ((AUTHORIZATION, f"Bearer {token.reveal()}"),)
    credentials = channel_credentials(settings)
    if credentials is None:
        return ServiceChannel(grpc.aio.insecure_channel(address, options=OPTIONS), metadata)
    return ServiceChannel(grpc.aio.secure_channel(address, credentials, options=OPTIONS), metadata)
