"""A real vault service for tests: its own process's wiring, on an ephemeral port, over a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as account_pb
from flowstack_protos.billing.v1.account_service_pb2_grpc import (
    AccountServiceServicer,
    add_AccountServiceServicer_to_server,
)
from flowstack_protos.vault.v1 import vault_service_pb2 as pb
from flowstack_protos.vault.v1.vault_service_pb2_grpc import VaultServiceStub

from services.shared.clock import Clock
from services.shared.errors import FlowStackError, Reason
from services.shared.secret import Secret
from services.shared.status import abort
from services.vault.__main__ import running
from services.vault.adapters.migrations.steps import MIGRATIONS
from services.vault.adapters.sql.database import Database, open_database
from services.vault.config import VaultSettings
from tests.support.billing import ADMIN, ADMIN_TOKEN, INTERNAL_TOKEN, Metadata, bearer
from tests.support.database import copy_of, on_each_store, template_of

ALICE: Final = "acct_alice"
BOB: Final = "acct_bob"
TIMEOUT_S: Final = 60


def key_of(account_id: str) -> str:
    """An API key of an account."""
    return f"fs_{account_id}"


class FakeBilling(AccountServiceServicer):
    """Knows the keys `fs_` and an account's id, unless they are revoked, and which accounts are deleted."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.accounts: dict[str, account_pb.Account] = {}
        self.asked: list[str] = []
        self.is_down = False

    async def AuthenticateApiKey(
        self, request: account_pb.AuthenticateApiKeyRequest, context: Any
    ) -> account_pb.AuthenticateApiKeyResponse:
        assert dict(context.invocation_metadata())["authorization"] == f"Bearer {INTERNAL_TOKEN}"
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "")
        account_id = request.api_key.removeprefix("fs_")
        if account_id in self.revoked:
            await abort(context, FlowStackError(Reason.API_KEY_REVOKED, "Revoked."))
        if not account_id.startswith("acct_"):
            await abort(context, FlowStackError(Reason.API_KEY_INVALID, "Unknown."))
        return account_pb.AuthenticateApiKeyResponse(account_id=account_id, api_key_id="key_1")

    async def GetAccount(self, request: account_pb.GetAccountRequest, context: Any) -> account_pb.GetAccountResponse:
        assert dict(context.invocation_metadata())["authorization"] == f"Bearer {ADMIN_TOKEN}"
        self.asked.append(request.account_id)
        account = self.accounts.get(request.account_id)
        if account is None:
            await abort(context, FlowStackError(Reason.ACCOUNT_NOT_FOUND, "Unknown."))
        return account_pb.GetAccountResponse(account=account)


@asynccontextmanager
async def fake_billing() -> AsyncIterator[tuple[FakeBilling, str]]:
    """A billing that answers on both of its addresses, which are one."""
    servicer, server = FakeBilling(), grpc.aio.server()
    add_AccountServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def settings_for(folder: Path, billing_address: str, **overrides: Any) -> VaultSettings:
    """Settings of a vault that keeps its data in `folder`."""
    values: dict[str, Any] = {
        "data_dir": folder,
        "vault_address": "127.0.0.1:0",
        "billing_address": billing_address,
        "billing_internal_address": billing_address,
        "admin_port_base": 0,
        "admin_token": Secret(ADMIN_TOKEN),
        "internal_token": Secret(INTERNAL_TOKEN),
    }
    return VaultSettings(_env_file=None, **(values | overrides))  # type: ignore[call-arg]


class VaultClient:
    """The methods, with one caller's credentials and a deadline on each call."""

    def __init__(self, stub: Any, metadata: Metadata, account_id: str = "") -> None:
        self._stub = stub
        self._metadata = metadata
        self._account_id = account_id

    def call(self, method: str, request: Any) -> Any:
        """A call that runs."""
        if self._account_id and not request.account_id:
            request.account_id = self._account_id
        return getattr(self._stub, method)(request, metadata=self._metadata, timeout=TIMEOUT_S)

    def store(self, collection: str, text: str, **fields: Any) -> Any:
        """Store."""
        return self.call("Store", pb.StoreRequest(collection=collection, document_json=text, **fields))

    def retrieve(self, collection: str, key: str) -> Any:
        """Retrieve."""
        return self.call("Retrieve", pb.RetrieveRequest(collection=collection, key=key))

    def query(self, collection: str, filter_json: str = "", sort: Any = (), **fields: Any) -> Any:
        """Query. `sort` has names, with a minus before them where they descend."""
        return self.call(
            "Query",
            pb.QueryRequest(collection=collection, filter_json=filter_json, sort=sorts(sort), **fields),
        )

    def delete(self, collection: str, **fields: Any) -> Any:
        """Delete."""
        return self.call("Delete", pb.DeleteRequest(collection=collection, **fields))

    def list_collections(self, **fields: Any) -> Any:
        """ListCollections."""
        return self.call("ListCollections", pb.ListCollectionsRequest(**fields))

    async def keys(self, collection: str, filter_json: str = "", sort: Any = (), **fields: Any) -> list[str]:
        """The keys of every page of a query."""
        found: list[str] = []
        token = ""
        while True:
            page = await self.query(collection, filter_json, sort, page_token=token, **fields)
            found += [document.key for document in page.documents]
            token = page.next_page_token
            if not token:
                return found


def sorts(names: Any) -> list[pb.Sort]:
    """Sort messages; a minus before a name makes it descend."""
    return [
        pb.Sort(
            field=name.removeprefix("-"),
            direction=pb.SORT_DIRECTION_DESCENDING if name.startswith("-") else pb.SORT_DIRECTION_ASCENDING,
        )
        for name in names
    ]


class VaultUnderTest:
    """A running vault, and the billing that it asks."""

    def __init__(self, channel: grpc.aio.Channel, billing: FakeBilling) -> None:
        self.stub: Any = VaultServiceStub(channel)
        self.billing = billing

    async def until_billing_is_reached(self) -> None:
        """Waits until the vault has its connection, which a loaded machine may be late with."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                try:
                    await self.customer("acct_first").list_collections()
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.UNAVAILABLE, error
                else:
                    return

    def customer(self, account_id: str) -> VaultClient:
        """A caller with an API key of an account."""
        return VaultClient(self.stub, bearer(key_of(account_id)))

    def admin(self, account_id: str = "") -> VaultClient:
        """The operator, who names an account."""
        return VaultClient(self.stub, ADMIN, account_id)


@asynccontextmanager
async def vault(settings: VaultSettings, clock: Clock, billing: FakeBilling) -> AsyncIterator[VaultUnderTest]:
    """Runs the vault until the block's end."""
    async with running(settings, clock) as host:
        await host.start()
        try:
            (port,) = host.bound_ports
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                service = VaultUnderTest(channel, billing)
                await service.until_billing_is_reached()
                yield service
        finally:
            await host.drain(0)


@asynccontextmanager
async def whole_vault(folder: Path, clock: Clock) -> AsyncIterator[tuple[str, FakeBilling]]:
    """A vault on SQLite with its billing; answers its address."""
    async with (
        fake_billing() as (billing, billing_address),
        running(settings_for(folder, billing_address), clock) as host,
    ):
        await host.start()
        try:
            yield f"127.0.0.1:{host.bound_ports[0]}", billing
        finally:
            await host.drain(0)


vault_template = template_of(MIGRATIONS)
vault_postgres = copy_of("vault_template")
vault_address = on_each_store("vault.db", "vault_postgres")


@pytest.fixture
async def vault_database(vault_address: str) -> AsyncIterator[Database]:
    """An open store."""
    opened = await open_database(vault_address)
    yield opened
    await opened.close()
