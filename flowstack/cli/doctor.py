"""`flowstack doctor`: whether the services can be reached, the key works, and clocks and versions agree."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import grpc
import typer
from google.protobuf.duration_pb2 import Duration

from flowstack._client import Client
from flowstack._connection import KEY_SETTING
from flowstack._errors import ConfigurationError, FlowStackError
from flowstack._methods import RouterService, UsageService, VaultService
from flowstack.cli.shell import Shell, shell_of

CLOCK_SECONDS_MAX = 60.0
"""By how much this machine's clock may differ before something is said about it."""

NOTES = "flowstack.doctor"
NOTE_SECONDS = 60


@dataclass
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str


def doctor(context: typer.Context) -> None:
    """Checks the services, the key, the clock and the versions; fails where one of them does not fit."""
    shell = shell_of(context)
    checks = _checks(shell)
    rows = [("ok" if check.ok else "FAILED", check.name, check.found) for check in checks]
    shell.output.table(("", "what", "found"), rows, {"checks": [asdict(check) for check in checks]}, "")
    if not all(check.ok for check in checks):
        raise typer.Exit(7)


def _checks(shell: Shell) -> list[Check]:
    checks = [Check("versions", True, f"flowstack {version('flowstack')}, grpcio {grpc.__version__}")]
    try:
        client = shell.client
    except ConfigurationError as error:
        return [*checks, Check("settings", False, str(error))]
    source = "--api-key" if shell.api_key else "--account" if shell.account_id else KEY_SETTING
    checks.append(Check("settings", True, f"the key comes from {source}"))
    account = {"account_id": shell.account_id} if shell.account_id else {}
    probes: list[tuple[str, Callable[[], str]]] = [
        ("billing", lambda: _usage(client, account)),
        ("vault", lambda: _vault(client, account)),
    ]
    if not shell.account_id:  # the router takes customers' keys only
        probes.insert(0, ("router", lambda: _models(client)))
    checks += [_probe(shell, name, probe) for name, probe in probes]
    checks.append(_clock(client, account))
    return checks


def _probe(shell: Shell, service: str, probe: Callable[[], str]) -> Check:
    endpoint = shell.client.connection.endpoints.of(service)  # type: ignore[arg-type]  # one of the three
    begun_s = time.monotonic()
    try:
        found = probe()
    except FlowStackError as error:
        return Check(f"{service} at {endpoint.address}", False, str(error))
    return Check(f"{service} at {endpoint.address}", True, f"{found}, {(time.monotonic() - begun_s) * 1000:.0f} ms")


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


def _clock(client: Client, account: Mapping[str, Any]) -> Check:
    """Compares with the vault's clock, which stands in the end of a note that it forgets by itself."""
    ttl = Duration(seconds=NOTE_SECONDS)
    request = VaultService.Store.request(collection=NOTES, key=uuid.uuid4().hex, document_json="{}", ttl=ttl, **account)
    begun_s = time.time()
    try:
        answer = client.call(VaultService.Store, request, safe=True)
    except FlowStackError as error:
        return Check("clock", False, f"cannot be compared: {error}")
    middle_s = (begun_s + time.time()) / 2
    theirs_s = answer.expire_time.ToMicroseconds() / 1_000_000 - NOTE_SECONDS
    apart_s = middle_s - theirs_s
    if abs(apart_s) <= CLOCK_SECONDS_MAX:
        return Check("clock", True, f"{abs(apart_s):.1f} s apart from the vault's")
    ahead = "ahead of" if apart_s > 0 else "behind"
    return Check("clock", False, f"{abs(apart_s):.0f} s {ahead} the vault's. Set one of them right.")
