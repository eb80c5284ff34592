"""Takes an address for a server, and says what to do where it cannot be had."""

from __future__ import annotations

import socket

import grpc

from services.shared.addresses import UNIX, listening_problem, other_port
from services.shared.settings import StartupError


def bind(
    server: grpc.aio.Server,
    address: str,
    setting: str,
    credentials: grpc.ServerCredentials | None,
    *,
    shared: bool = False,
) -> int:
    """Binds `address` and returns the port number.

    Args:
        server: what is to listen.
        address: where.
        setting: the variable that sets the address, for messages.
        credentials: of TLS; None for plaintext.
        shared: whether other workers listen there too, so that it is no error when it is taken.

    Raises:
        StartupError: the port is taken, or the address is none of this machine's.
    """
    # gRPC gives no reason, and takes the file of a Unix socket away from a server that uses it.
    held: list[socket.socket] = []
    problem = None if shared else listening_problem(address, held)
    for one in held:
        one.close()
    if problem is not None:
        raise StartupError(cannot_listen(address, setting, problem))
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise StartupError(cannot_listen(address, setting, "somebody was faster")) from error


def cannot_listen(address: str, setting: str, problem: str) -> str:
    """The sentence for an address that cannot be had."""
    if address.startswith(UNIX):
        return f"Cannot listen on {address}: {problem}. Set {setting} to another path."
    return f"Cannot listen on {address}: {problem}. Stop what listens there, or set {proposal(address, setting)}."


def proposal(address: str, setting: str) -> str:
    """Another value for the setting of a port that cannot be had."""
    other = other_port(address)
    return f"{setting}={other if setting.endswith('_ADDRESS') else other.rpartition(':')[2]}"
