"""Builders of quota's commands and entitlements, and a real quota server for tests."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
from flowstack_protos.quota.v1 import quota_service_pb2, quota_service_pb2_grpc

from services.quota.adapters.sqlite import SqliteStore
from services.quota.config import QuotaSettings
from services.quota.domain.commands import LEASE_US_DEFAULT, Command, Commit, Done, Release, Reserve, Result
from services.quota.domain.model import (
    PARTITIONS,
    Block,
    Candidate,
    CredentialMode,
    Entitlement,
    Outcome,
    Session,
    SessionState,
    Term,
)
from services.quota.service import QuotaService
from services.quota.servicer import CONVERSION_VALIDATES, POLICIES, QuotaServicer
from services.quota.store import Store
from services.shared.auth import Authenticator
from services.shared.clock import Clock
from services.shared.errors import FlowStackError, Reason
from services.shared.secret import Secret
from services.shared.server import Port, Registration, ServiceHost
from services.shared.settings import load
from tests.support.clock import SECOND_US, ManualClock, us
from tests.support.threads import in_thread

ACCOUNT: Final = "acct_one"
OTHER: Final = "acct_two"
ANCHOR_US: Final = us(2026, 3, 1)
"""The builders' subscription starts here: the ManualClock's start is in its first period."""
NEXT_PERIOD_US: Final = us(2026, 4, 1)
HOLD_US: Final = 60 * SECOND_US

MANAGED: Final = CredentialMode.MANAGED
BYOK: Final = CredentialMode.BYOK

_ULID_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_numbers = itertools.count(1)


def uuid7_session_id(made_us: int, number: int) -> str:
    """A session id of the UUIDv7 form, made at `made_us`."""
    return f"ses_{made_us // 1000:012x}7000{0x8000_0000_0000_0000 + number:016x}"


def ulid_session_id(made_us: int, number: int) -> str:
    """A session id of the ULID form, made at `made_us`."""
    value = (made_us // 1000 << 80) + number
    return "ses_" + "".join(_ULID_DIGITS[value >> shift & 31] for shift in range(125, -1, -5))


def new_session_id(clock: Clock) -> str:
    """A session id made now that no other test uses."""
    return uuid7_session_id(clock.now_us(), next(_numbers))


def candidate(provider: str = "openai", model: str = "gpt-4o", mode: int = BYOK) -> Candidate:
    """A candidate; by default one that every plan allows."""
    return Candidate(provider, model, mode)


def reserve(
    session_id: str,
    account_id: str = ACCOUNT,
    *,
    candidates: Sequence[Candidate] = (Candidate("openai", "gpt-4o", BYOK),),
    lease_us: int = LEASE_US_DEFAULT,
    request_id: str = "",
    api_key_id: str = "",
    labels: Sequence[tuple[str, str]] = (),
) -> Reserve:
    """A reserve command."""
    return Reserve(account_id, session_id, tuple(candidates), lease_us, request_id, api_key_id, tuple(labels))


COUNTED_BYOK: Final = Outcome(BYOK, b"")


def outcome(mode: int = BYOK, payload: bytes = b"") -> Outcome:
    """An outcome."""
    return Outcome(mode, payload)


def commit(session_id: str, account_id: str = ACCOUNT, *, ended: Outcome = COUNTED_BYOK) -> Commit:
    """A commit command."""
    return Commit(account_id, session_id, ended)


def release(session_id: str, account_id: str = ACCOUNT, *, reason: int = 1, ended: Outcome | None = None) -> Release:
    """A release command."""
    return Release(account_id, session_id, reason, ended)


def term(
    effective_us: int = ANCHOR_US,
    *,
    plan_id: str = "starter",
    limit: int = 10,
    managed_providers: Sequence[str] = ("openai",),
    concurrent: int = 1_000,
    upgrade_plan_id: str = "professional",
) -> Term:
    """A term of an entitlement."""
    return Term(effective_us, plan_id, limit, tuple(managed_providers), concurrent, 4_096, 25, upgrade_plan_id)


def entitlement(
    account_id: str = ACCOUNT,
    *terms: Term,
    revision: int = 1,
    subscription_id: str = "sub_1",
    anchor_us: int = ANCHOR_US,
    end_us: int = 0,
    block: Block | None = None,
    limit: int = 10,
    concurrent: int = 1_000,
) -> Entitlement:
    """An entitlement; with one term of `limit` sessions where none is given."""
    given = terms or (term(anchor_us, limit=limit, concurrent=concurrent),)
    return Entitlement(account_id, revision, subscription_id, anchor_us, given, end_us, block)


def done(result: Result) -> Done:
    """The success that `result` has to be."""
    assert isinstance(result, Done), result
    return result


def reason_of(result: Result) -> Reason:
    """The reason of the failure that `result` has to be."""
    assert isinstance(result, FlowStackError), result
    return result.reason


async def one(store: Store, command: Command) -> Result:
    """The result of a lone command."""
    (result,) = await results_of(store, [command])
    return result


async def results_of(store: Store, commands: Sequence[Command]) -> list[Result]:
    """The results of a batch; a store that fails as a whole fails each command."""
    try:
        return await store.execute(commands)
    except FlowStackError as error:
        return [error] * len(commands)


def in_state(
    state: SessionState,
    command: Reserve,
    *,
    reserve_us: int,
    resolve_us: int = 0,
    ended: Outcome | None = None,
    release_reason: int = 0,
) -> Session:
    """A session that `command` reserved at `reserve_us` and that is in `state` now."""
    return Session(
        command.session_id,
        command.account_id,
        state,
        command.candidates,
        ANCHOR_US,
        reserve_us,
        reserve_us + command.lease_us,
        resolve_us,
        ended,
        release_reason,
        command.request_id,
        command.api_key_id,
        command.labels,
        1,
    )


@asynccontextmanager
async def sqlite_store(path: Path, clock: Clock, hold_us: int = HOLD_US) -> AsyncIterator[SqliteStore]:
    """An open SQLite store."""
    store = SqliteStore.open(path, clock, hold_us)
    try:
        yield store
    finally:
        await store.close()


INTERNAL_TOKEN: Final = "token-between-services"
CREDENTIALS: Final = (("authorization", f"Bearer {INTERNAL_TOKEN}"),)
SERVICE: Final = quota_service_pb2.DESCRIPTOR.services_by_name["QuotaService"]


@dataclass
class QuotaServer:
    """A running quota server."""

    address: str
    host: ServiceHost
    store: Store
    service: QuotaService
    clock: Clock
    token: str = INTERNAL_TOKEN
    maintenance: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The port number."""
        return int(self.address.rpartition(":")[2])


def quota_host(folder: Path, service: QuotaService) -> ServiceHost:
    """A host that serves quota on a free port of loopback."""
    settings = load(
        QuotaSettings,
        data_dir=folder,
        quota_address="127.0.0.1:0",
        admin_port_base=0,
        internal_token=INTERNAL_TOKEN,
        reflection=True,
    )
    registration = Registration(
        SERVICE,
        quota_service_pb2_grpc.add_QuotaServiceServicer_to_server,
        QuotaServicer(service),
        POLICIES,
        CONVERSION_VALIDATES,
    )
    port = Port(
        settings.quota_address,
        "FLOWSTACK_QUOTA_ADDRESS",
        [registration],
        lambda policies: Authenticator(policies, internal_tokens=(Secret(INTERNAL_TOKEN),)),
        internal=True,
    )
    return ServiceHost("quota", settings, [port])


@asynccontextmanager
async def serve_store(
    folder: Path, store: Store, clock: Clock, *, maintained: bool = False
) -> AsyncIterator[QuotaServer]:
    """A real quota server on `store`, which stays open afterwards.

    Args:
        folder: the data folder.
        store: the store to serve.
        clock: the store's clock.
        maintained: sweep, move the clock and prune as the service does by itself.
    """
    service = QuotaService(store)
    host = quota_host(folder, service)
    await host.start()
    server = QuotaServer(f"127.0.0.1:{host.bound_ports[0]}", host, store, service, clock)
    if maintained:
        server.maintenance.append(asyncio.create_task(service.maintain()))
    try:
        yield server
    finally:
        for task in server.maintenance:
            task.cancel()
        await asyncio.gather(*server.maintenance, return_exceptions=True)
        await host.drain(0)


@asynccontextmanager
async def quota_server(
    folder: Path, clock: Clock | None = None, *, hold_us: int = HOLD_US, maintained: bool = False
) -> AsyncIterator[QuotaServer]:
    """A real quota server on a SQLite store of its own."""
    time = clock or ManualClock()
    async with (
        sqlite_store(folder / "quota.db", time, hold_us) as store,
        serve_store(folder, store, time, maintained=maintained) as server,
    ):
        yield server


def stub(channel: grpc.aio.Channel) -> quota_service_pb2_grpc.QuotaServiceAsyncStub:
    """The typed client of a channel."""
    return quota_service_pb2_grpc.QuotaServiceStub(channel)


def quota_server_in_thread(folder: Path) -> AbstractContextManager[QuotaServer]:
    """A real quota server in a thread with a loop of its own, for blocking clients."""
    return in_thread(lambda: quota_server(folder))


async def prune_all(store: Store) -> None:
    """Prunes until there is nothing more to prune."""
    for partition in range(PARTITIONS):
        while await store.prune(partition):
            pass
