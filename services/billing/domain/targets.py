"""Which addresses a webhook may be sent to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_NAT64: Final = IPv6Network("64:ff9b::/96")
"""IPv4 addresses behind a translator (RFC 6052)."""

_REFUSED: Final = (
    # Azure's platform channel, a public address that reaches the host's own agent from every machine there
    # (learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16).
    IPv4Network("168.63.129.16/32"),
    # Of IANA's registries of special-purpose addresses what Python's list lacks, or has in some versions only.
    # IETF's protocol assignments, among them Oracle's metadata.
    IPv4Network("192.0.0.0/24"),
    # Carriers' own, among them Alibaba's metadata (RFC 6598).
    IPv4Network("100.64.0.0/10"),
    # 6to4's relays, deprecated (RFC 7526).
    IPv4Network("192.88.99.0/24"),
    # IETF's protocol assignments: Teredo, benchmarks, ORCHID and the like (RFC 2928).
    IPv6Network("2001::/23"),
    # Documentation (RFC 3849, RFC 9637).
    IPv6Network("2001:db8::/32"),
    IPv6Network("3fff::/20"),
)

_UNICAST: Final = IPv6Network("2000::/3")
"""All of IPv6 that is routed publicly (RFC 4291, IANA's registry)."""


def networks_of(text: str) -> tuple[Network, ...]:
    """Networks in CIDR notation, comma-separated.

    Raises:
        ValueError: one of them is none.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def is_allowed(address: str, operators: Sequence[Network]) -> bool:
    """Whether a webhook may be sent to `address`: a public unicast one, or one that the operator allows.

    An IPv6 address that stands for an IPv4 one is judged as that, so that none is let through in disguise.
    """
    try:
        parsed: Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if any(parsed.version == network.version and parsed in network for network in operators):
        return True
    inner = _inner(parsed)
    if inner is not None:
        return is_allowed(str(inner), operators)
    if any(parsed.version == network.version and parsed in network for network in _REFUSED):
        return False
    if isinstance(parsed, IPv6Address) and parsed not in _UNICAST:
        return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


def _inner(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
