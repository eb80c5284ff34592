"""The addresses that services listen on and call: host:port, or unix: and the path of a socket."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UNIX: Final = "unix:"
PORT_MAX: Final = 65_535
_RULE: Final = f"has to be host:port with a port from 0 to {PORT_MAX}, such as 127.0.0.1:50051, or unix: and a path"
_PATTERN: Final = re.compile(r"(?P<host>(?:dns:///)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """An address in its parts: a host without brackets and a port, or a path."""

    host: str = ""
    port: int = 0
    path: str = ""


def parse(text: str) -> Address:
    """The parts of an address.

    Raises:
        ValueError: it is none. The message goes after the setting's name.
    """
    if text.startswith(UNIX):
        path = text.removeprefix(UNIX)
        if not path.lstrip("/"):
            raise ValueError(_RULE)
        return Address(path=path.removeprefix("//") if path.startswith("///") else path)
    found = _PATTERN.fullmatch(text)
    if found is None or int(found["port"]) > PORT_MAX:
        raise ValueError(_RULE)
    return Address(found["host"].strip("[]"), int(found["port"]))


def is_loopback(text: str) -> bool:
    """True when the address can be reached from this machine only."""
    address = parse(text)
    if address.path or address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def other_port(text: str) -> str:
    """The same host with another port, to propose where this one is taken."""
    port = parse(text).port
    host, _, _ = text.rpartition(":")
    return f"{host}:{port + 100 if port + 100 <= PORT_MAX else port - 100}"


def listening_problem(text: str, held: list[socket.socket]) -> str | None:
    """Why nobody can listen on the address now; None where one can.

    Args:
        text: the address.
        held: gets the sockets that listen there from now on, for the caller to close.
    """
    address = parse(text)
    try:
        if address.path:
            return _socket_file_problem(Path(address.path))
        return _port_problem(address, held)
    except socket.gaierror:
        return f"the host {address.host} is not known"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)


def _port_problem(address: Address, held: list[socket.socket]) -> str | None:
    problem, before = None, len(held)
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, target in found:
        one = socket.socket(family, kind, protocol)
        try:
            # As servers do: connections that are only waiting to be forgotten do not matter.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(target)
            one.listen(1)
        except OSError as error:
            one.close()
            if error.errno == errno.EADDRINUSE:
                return f"port {address.port} is taken"
            problem = (
                f"{address.host} is not an address of this machine"
                if error.errno == errno.EADDRNOTAVAIL
                else os.strerror(error.errno or 0)
            )
        else:
            held.append(one)
    # A name can stand for several addresses; one of them that works is enough.
    return None if len(held) > before else problem


def _socket_file_problem(path: Path) -> str | None:
    if not path.parent.is_dir():
        return f"{path.parent} is not a folder"
    if not os.access(path.parent, os.W_OK):
        return f"{path.parent} may not be written to"
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
    return f"{path} is in use"
