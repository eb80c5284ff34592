"""Transport security of servers and of the channels between services."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from services.shared.settings import CommonSettings, StartupError, is_loopback


def server_credentials(
    settings: CommonSettings, address: str, setting: str, *, internal: bool
) -> grpc.ServerCredentials | None:
    """The credentials of a listening port; None for plaintext.

    Internal ports demand client certificates: gRPC Python cannot take optional ones.

    Raises:
        StartupError: plaintext beyond loopback, or certificates that are incomplete or unreadable.
    """
    if not settings.tls:
        if not is_loopback(address) and not settings.allow_plaintext:
            raise StartupError(
                f"{setting}={address} can be reached from other machines, and no certificate is configured. "
                "Set FLOWSTACK_TLS_CERT_FILE and FLOWSTACK_TLS_KEY_FILE, or FLOWSTACK_ALLOW_PLAINTEXT=1 where "
                "something in front of the service encrypts."
            )
        return None
    certificate, key = _pair(settings)
    pair = (key, certificate)
    if not internal:
        return grpc.ssl_server_credentials([pair])
    authority = _certificates(settings.tls_client_ca_file, "FLOWSTACK_TLS_CLIENT_CA_FILE")
    return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=True)


def channel_credentials(settings: CommonSettings) -> grpc.ChannelCredentials | None:
    """What a service shows to another one; None for plaintext.

    Raises:
        StartupError: certificates that are incomplete or unreadable.
    """
    if not settings.tls:
        return None
    certificate, key = _pair(settings)
    return grpc.ssl_channel_credentials(_server_authority(settings), key, certificate)


def customer_credentials(settings: CommonSettings) -> grpc.ChannelCredentials | None:
    """What a customer needs to call the public ports; None for plaintext.

    Raises:
        StartupError: the authority's certificate is missing or unreadable.
    """
    return grpc.ssl_channel_credentials(_server_authority(settings)) if settings.tls else None


def _server_authority(settings: CommonSettings) -> bytes:
    variable = "FLOWSTACK_TLS_SERVER_CA_FILE" if settings.tls_server_ca_file else "FLOWSTACK_TLS_CLIENT_CA_FILE"
    return _certificates(settings.server_authority_file, variable)


def _pair(settings: CommonSettings) -> tuple[bytes, bytes]:
    """The certificate and its key, which fit each other."""
    certificate = _certificates(settings.tls_cert_file, "FLOWSTACK_TLS_CERT_FILE")
    key = _read(settings.tls_key_file, "FLOWSTACK_TLS_KEY_FILE")
    assert settings.tls_cert_file is not None
    try:
        # An encrypted key must not ask at the terminal: no password is the answer to any question.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_cert_file, settings.tls_key_file, password=lambda: b""
        )
    except (ssl.SSLError, ValueError) as error:
        problem = (
            "does not belong to the certificate of FLOWSTACK_TLS_CERT_FILE"
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH"
            else "is not a private key in PEM without a password"
        )
        raise StartupError(
            f"FLOWSTACK_TLS_KEY_FILE names {settings.tls_key_file}, which {problem}. Name the certificate's key."
        ) from None
    return certificate, key


def _certificates(path: Path | None, variable: str) -> bytes:
    content = _read(path, variable)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise StartupError(
            f"{variable} names {path}, which holds no certificate in PEM. Name a file that does."
        ) from None
    return content


def _read(path: Path | None, variable: str) -> bytes:
    if path is None:
        raise StartupError(f"TLS is configured, but {variable} is not set. Set it, or unset FLOWSTACK_TLS_CERT_FILE.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartupError(
            f"{variable} names {path}, which cannot be read ({error.strerror}). Correct the path or its permissions."
        ) from error
