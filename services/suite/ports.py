"""Looks at all ports before any service is started, so that one message names all that are taken."""

from __future__ import annotations

import socket

from services.shared.addresses import listening_problem
from services.shared.listening import cannot_listen, proposal
from services.shared.server import SERVICES
from services.shared.settings import CommonSettings, StartupError
from services.suite.ready import admin_addresses

ADMIN_SETTING = "FLOWSTACK_ADMIN_PORT_BASE"


def assert_ports_are_free(settings: CommonSettings) -> None:
    """Asserts that every configured address can be listened on.

    Raises:
        StartupError: some cannot; the message names them and other settings.
    """
    held: list[socket.socket] = []
    try:
        problems = [
            (address, setting, problem)
            for address, setting in _addresses(settings)
            if (problem := listening_problem(address, held)) is not None
        ]
    finally:
        for one in held:
            one.close()
    if len(problems) == 1:
        raise StartupError(cannot_listen(*problems[0]))
    if problems:
        found = ", ".join(f"{address} ({setting}: {problem})" for address, setting, problem in problems)
        # One base sets all admin ports.
        others = {setting: proposal(address, setting) for address, setting, _ in reversed(problems)}
        raise StartupError(
            f"Cannot listen on {found}. Stop what listens there, which may be services that still drain, "
            f"or set other ports, for instance {' '.join(reversed(others.values()))}."
        )


def _addresses(settings: CommonSettings) -> list[tuple[str, str]]:
    names = ("router", "quota", "billing", "vault", "billing_internal")
    addresses = [(getattr(settings, f"{name}_address"), f"FLOWSTACK_{name.upper()}_ADDRESS") for name in names]
    if settings.admin_port_base:
        addresses += [(address, ADMIN_SETTING) for address in admin_addresses(settings, SERVICES).values()]
    return addresses
