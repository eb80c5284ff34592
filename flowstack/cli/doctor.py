"""`flowstack doctor`: whether the services can be reached, the key works, and clocks and contracts agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import grpc
import typer

from flowstack._client import Client
from flowstack._connection import KEY_SETTING, Channels
from flowstack._endpoints import ServiceName
from flowstack._errors import ConfigurationError, FlowStackError
from flowstack._methods import RouterService, UsageService, VaultService
from flowstack.cli.output import exit_code_of
from flowstack.cli.shell import Shell, shell_of

CLOCK_SECONDS_MAX: Final = 60.0
"""By how much this machine's clock may differ before something is said about it."""
LEDGER_SECONDS: Final = 10.0
"""How old billing's ledger is at most where all is well; quota moves it on every 5 s."""
DIFFERS: Final = 6
"""The exit code where clocks or contracts do not agree."""
NAMES_MAX: Final = 5
"""Differences of a contract that are named."""


@dataclass
class Check:
    """One thing that was looked at."""

    name: str
    found: str
    code: int = 0
    """What the process ends with for it; 0 where all is well."""


def doctor(context: typer.Context) -> None:
    """Checks services, key, clock and contracts; ends with the exit code of the first check that failed."""
    shell = shell_of(context)
    checks = _checks(shell)
    rows = [("FAILED" if check.code else "ok", check.name, check.found) for check in checks]
    found = [{"name": check.name, "ok": not check.code, "found": check.found} for check in checks]
    shell.output.table(("", "what", "found"), rows, {"checks": found}, "")
    code = next((check.code for check in checks if check.code), 0)
    if code:
        raise typer.Exit(code)


def _checks(shell: Shell) -> list[Check]:
    checks = [Check("client", f"flowstack {version('flowstack')}, grpcio {grpc.__version__}")]
    try:
        client = shell.client
    except ConfigurationError as error:
        return [*checks, Check("settings", str(error), exit_code_of(error))]
    source = "--api-key" if shell.api_key else "--account" if shell.account_id else KEY_SETTING
    checks.append(Check("settings", f"the key comes from {source}"))
    account = {"account_id": shell.account_id} if shell.account_id else {}
    probes: list[tuple[ServiceName, Callable[[], str]]] = [
        ("billing", lambda: _usage(client, account)),
        ("vault", lambda: _vault(client, account)),
    ]
    if not shell.account_id:  # the router takes customers' keys only
        probes.insert(0, ("router", lambda: _models(client)))
    channels = Channels(client.connection.endpoints)
    try:
        for service, probe in probes:
            checks.append(_probe(client, service, probe))
            contract = _contract(client, channels, service)
            checks += [contract] if contract is not None else []
    finally:
        channels.close()
    clock = _clock(client, account)
    return [*checks, clock] if clock is not None else checks


def _probe(client: Client, service: ServiceName, probe: Callable[[], str]) -> Check:
    name = f"{service} at {client.connection.endpoints.of(service).address}"
    begun_s = time.monotonic()
    try:
        found = probe()
    except FlowStackError as error:
        return Check(name, str(error), exit_code_of(error))
    return Check(name, f"{found}, {(time.monotonic() - begun_s) * 1000:.0f} ms")


def _models(client: Client) -> str:
    answer = client.call(RouterService.ListModels, RouterService.ListModels.request(page_size=1000))
    providers = sorted({model.provider for model in answer.models})
    return f"{len(answer.models)} models of {', '.join(providers)}"


def _usage(client: Client, account: Mapping[str, Any]) -> str:
    usage = client.call(UsageService.GetUsage, UsageService.GetUsage.request(**account)).usage
    can = "can start sessions" if usage.can_make_requests else f"cannot start sessions: {usage.refusal_reason}"
    return f"{usage.account_id} on {usage.plan_id}, {can}"


def _vault(client: Client, account: Mapping[str, Any]) -> str:
    request = VaultService.ListCollections.request(page_size=1000, **account)
    answer = client.call(VaultService.ListCollections, request)
    return f"{len(answer.collections)} collections"


def _contract(client: Client, channels: Channels, service: ServiceName) -> Check | None:
    """Compares what the service says it understands with what this client was made for; None where it is not there."""
    # Only here: nobody else needs reflection.
    from flowstack.cli.contract import difference

    name = f"{service}'s contract"
    try:
        found = difference(channels.get(client.connection.endpoints.of(service)), service)
    except grpc.RpcError as error:
        call: Any = error
        if call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return None  # the probe has said so
        return Check(name, "not compared: the service does not tell it (FLOWSTACK_REFLECTION=1 there makes it)")
    if found.missing:
        return Check(
            name,
            f"the service is older than this client and lacks {_some(found.missing)}. Bring it up to date, or install "
            "the client of its version.",
            DIFFERS,
        )
    if found.unknown:
        return Check(
            name, f"the service is newer and also has {_some(found.unknown)}. This client works; a newer one has these."
        )
    return Check(name, "the same as this client's")


def _some(names: list[str]) -> str:
    rest = len(names) - NAMES_MAX
    return ", ".join(names[:NAMES_MAX]) + (f" and {rest} more" if rest > 0 else "")


def _clock(client: Client, account: Mapping[str, Any]) -> Check | None:
    """Compares with the time that billing's ledger is at, which is quota's, a few seconds old; None without it."""
    begun_s = time.time()
    try:
        usage = client.call(UsageService.GetUsage, UsageService.GetUsage.request(**account)).usage
    except FlowStackError:
        return None  # the probe has said so
    behind_s = begun_s - usage.costs_as_of_time.ToMicroseconds() / 1_000_000
    if -CLOCK_SECONDS_MAX <= behind_s <= CLOCK_SECONDS_MAX + LEDGER_SECONDS:
        return Check("clock", f"billing's ledger is as of {max(behind_s, 0):.0f} s ago")
    if behind_s < 0:
        return Check("clock", f"this machine's clock is {-behind_s:.0f} s behind the services'. Set it right.", DIFFERS)
    return Check(
        "clock",
        f"billing's ledger is {behind_s:.0f} s behind this machine's clock. Set the clock right if it is ahead; if it "
        "is right, quota or billing stands still.",
        DIFFERS,
    )
