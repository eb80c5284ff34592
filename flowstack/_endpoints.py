"""Where the services are: one address behind a proxy, or one for each service.

FLOWSTACK_ROUTER_ENDPOINT, FLOWSTACK_BILLING_ENDPOINT and FLOWSTACK_VAULT_ENDPOINT name one service each,
FLOWSTACK_ENDPOINT all that are not named; what is left is on this machine, on the port that the service has by default.
An address is `https://host[:port]` for TLS, `http://host[:port]` or `host:port` without, or `unix:path`. Over TLS a
server has to show a certificate of its name, signed by an authority in the file that FLOWSTACK_TLS_SERVER_CA_FILE
names; where that is not set, by one of the public authorities. Nothing is ever sent in plaintext instead.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from flowstack._errors import ConfigurationError

ServiceName = Literal["router", "billing", "vault"]

DEFAULT_PORTS: Final[Mapping[ServiceName, int]] = {"router": 50051, "billing": 50053, "vault": 50054}
COMMON_SETTING: Final = "FLOWSTACK_ENDPOINT"
AUTHORITY_SETTING: Final = "FLOWSTACK_TLS_SERVER_CA_FILE"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One service's address."""

    service: ServiceName
    target: str
    """What gRPC dials, such as `127.0.0.1:50051`."""
    tls: bool
    setting: str
    """The variable that says where it is, for messages."""
    authority: bytes | None = field(default=None, repr=False)
    """The certificates in PEM that its own is checked against; None for the public ones."""

    @property
    def address(self) -> str:
        """The address as a person writes it."""
        return f"https://{self.target}" if self.tls else self.target


@dataclass(frozen=True, slots=True)
class Endpoints:
    """All services' addresses."""

    router: Endpoint
    billing: Endpoint
    vault: Endpoint

    def of(self, service: ServiceName) -> Endpoint:
        """The address of `service`."""
        return {"router": self.router, "billing": self.billing, "vault": self.vault}[service]


def endpoints_from(environment: Mapping[str, str], endpoint: str | Mapping[str, str] | None = None) -> Endpoints:
    """The addresses that an agent uses.

    Args:
        environment: the variables.
        endpoint: what the caller named in code, in place of them: one address for all, or a mapping with some of
            `router`, `billing` and `vault`.

    Raises:
        ConfigurationError: an address that cannot be one, a service that there is not, or a file without certificates.
    """
    if endpoint is not None and not isinstance(endpoint, str | Mapping):
        raise ConfigurationError("endpoint has to be text, or a dict with some of router, billing and vault.")
    named = {} if endpoint is None or isinstance(endpoint, str) else dict(endpoint)
    for name in named:
        if name not in DEFAULT_PORTS:
            raise ConfigurationError(f"endpoint names {name!r}; the services are router, billing and vault.")
    common = endpoint if isinstance(endpoint, str) else None

    def one(service: ServiceName) -> Endpoint:
        own = f"FLOWSTACK_{service.upper()}_ENDPOINT"
        if service in named or common is not None:
            return _parse(service, named.get(service) or common or "", "endpoint", environment)
        for setting in (own, COMMON_SETTING):
            if environment.get(setting):
                return _parse(service, environment[setting], setting, environment)
        return Endpoint(service, f"127.0.0.1:{DEFAULT_PORTS[service]}", False, f"{own} or {COMMON_SETTING}")

    return Endpoints(one("router"), one("billing"), one("vault"))


def _parse(service: ServiceName, text: str, setting: str, environment: Mapping[str, str]) -> Endpoint:
    if isinstance(text, str) and text.startswith("unix:"):
        return Endpoint(service, text, False, setting)
    try:
        url = urlsplit(text if "://" in text else f"plain://{text}")
        port = url.port
        known = url.scheme in ("http", "https") or (url.scheme == "plain" and port is not None)
    except (TypeError, ValueError):
        known = False
    if not known or not url.hostname or url.path not in ("", "/") or url.query or url.username:
        raise ConfigurationError(
            f"{setting} has to be https://host, http://host:port or host:port, without a path; it is not."
        )
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    tls = url.scheme == "https"
    authority = _authority(environment.get(AUTHORITY_SETTING, "")) if tls else None
    return Endpoint(service, f"{host}:{port or (443 if tls else 80)}", tls, setting, authority)


def _authority(file: str) -> bytes | None:
    """The certificates in a file; None where none is named."""
    if not file:
        return None
    try:
        content = Path(file).read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(
            f"{AUTHORITY_SETTING} names {file}, which holds no certificate in PEM. Name the file with the certificate "
            "of the authority that signed the servers' own."
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"{AUTHORITY_SETTING} names {file}, which cannot be read ({error.strerror}). Correct the path or its "
            "permissions."
        ) from None
    return content
