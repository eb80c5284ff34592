"""TLS: customers prove themselves by keys, services by a certificate that names a service, or by the token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as account_pb
from flowstack_protos.billing.v1.account_service_pb2_grpc import AccountServiceStub
from flowstack_protos.quota.v1 import quota_service_pb2 as quota_pb
from flowstack_protos.quota.v1.quota_service_pb2_grpc import QuotaServiceStub

from services.billing.__main__ import running as running_billing
from services.billing.config import BillingSettings
from services.quota.__main__ import running as running_quota
from services.quota.config import QuotaSettings
from services.shared.channel import connect
from services.shared.clock import SystemClock
from services.shared.errors import Reason
from services.shared.secret import Secret
from services.shared.server import ServiceHost
from services.shared.settings import CommonSettings
from tests.grpc.shared.certificates import Authority, Certificate
from tests.support.billing import ADMIN, INTERNAL, INTERNAL_TOKEN, QUICK, bearer, failure_of, settings_for

HERE = ("DNS:localhost", "IP:127.0.0.1")
ROUTER = "spiffe://flowstack/router"


@dataclass(frozen=True)
class Plant:
    """The authorities, and the certificate of the servers. Servers and clients have authorities of their own."""

    servers: Authority
    clients: Authority
    server: Certificate

    def settings(self, **overrides: Any) -> dict[str, Any]:
        """A server's TLS settings."""
        return {
            "tls_cert_file": self.server.certificate,
            "tls_key_file": self.server.key,
            "tls_client_ca_file": self.clients.file,
            "tls_server_ca_file": self.servers.file,
            **overrides,
        }

    def channel(self, port: int, certificate: Certificate | None = None) -> grpc.aio.Channel:
        """A channel that trusts the server, and shows a certificate where there is one."""
        credentials = grpc.ssl_channel_credentials(
            self.servers.file.read_bytes(),
            certificate.key.read_bytes() if certificate else None,
            certificate.certificate.read_bytes() if certificate else None,
        )
        return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    folder = tmp_path_factory.mktemp("certificates")
    servers, clients = Authority(folder, "servers"), Authority(folder, "clients")
    return Plant(servers, clients, servers.issue("server", *HERE))


@asynccontextmanager
async def billing(folder: Path, plant: Plant, **overrides: Any) -> AsyncIterator[ServiceHost]:
    settings: BillingSettings = settings_for(folder, "127.0.0.1:1", **plant.settings(**overrides))
    async with running_billing(settings, SystemClock(), QUICK) as host:
        await host.start()
        try:
            yield host
        finally:
            await host.drain(0)


async def authenticate(channel: grpc.aio.Channel, metadata: Any = ()) -> account_pb.AuthenticateApiKeyResponse:
    """A call of a service to billing's internal port; with no such key, whoever may ask is told so."""
    stub: Any = AccountServiceStub(channel)
    async with channel:
        return await stub.AuthenticateApiKey(
            account_pb.AuthenticateApiKeyRequest(api_key="fs_nobody"), metadata=metadata, timeout=30
        )


async def admitted(channel: grpc.aio.Channel, metadata: Any = ()) -> bool:
    """Whether an internal call is let through to its method, which knows no such key."""
    _, error = await failure_of(authenticate(channel, metadata))
    assert error.reason in (Reason.API_KEY_INVALID, Reason.API_KEY_MISSING)
    return error.reason is Reason.API_KEY_INVALID


async def test_the_public_port_serves_a_key_over_tls(tmp_path: Path, plant: Plant) -> None:
    async with billing(tmp_path, plant) as host, plant.channel(host.bound_ports[0]) as channel:
        stub: Any = AccountServiceStub(channel)
        created = await stub.CreateAccount(
            account_pb.CreateAccountRequest(display_name="Ada", email="ada@example.org"), metadata=ADMIN
        )
        key = await stub.CreateApiKey(
            account_pb.CreateApiKeyRequest(account_id=created.account.account_id), metadata=ADMIN
        )
        shown = await stub.GetAccount(account_pb.GetAccountRequest(), metadata=bearer(key.secret))
    assert shown.account.account_id == created.account.account_id


async def test_the_public_port_takes_no_plaintext(tmp_path: Path, plant: Plant) -> None:
    async with (
        billing(tmp_path, plant) as host,
        grpc.aio.insecure_channel(f"127.0.0.1:{host.bound_ports[0]}") as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await AccountServiceStub(channel).GetAccount(account_pb.GetAccountRequest(), metadata=ADMIN, timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("shown", ["none", "foreign"])
async def test_the_internal_port_refuses_who_shows_no_certificate_of_ours(
    tmp_path: Path, plant: Plant, shown: str
) -> None:
    foreign = Authority(tmp_path, "foreign").issue("router", f"URI:{ROUTER}") if shown == "foreign" else None
    async with billing(tmp_path, plant, tls_service_names=ROUTER) as host:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await authenticate(plant.channel(host.bound_ports[1], foreign), INTERNAL)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("listed", ["", ROUTER, f"{ROUTER}, router.internal"])
@pytest.mark.parametrize(
    "alternative", [f"URI:{ROUTER}", "DNS:router.internal", f"URI:{ROUTER}/x", "DNS:router.internal.example"]
)
async def test_a_certificate_proves_a_service_only_by_a_name_that_is_listed(
    tmp_path: Path, plant: Plant, listed: str, alternative: str
) -> None:
    certificate = plant.clients.issue("any", alternative)
    async with billing(tmp_path, plant, tls_service_names=listed) as host:
        named = await admitted(plant.channel(host.bound_ports[1], certificate))
        tokened = await admitted(plant.channel(host.bound_ports[1], certificate), INTERNAL)
    assert named is (alternative.partition(":")[2] in listed.split(", "))
    assert tokened


async def test_the_common_name_proves_nothing(tmp_path: Path, plant: Plant) -> None:
    certificate = plant.clients.issue("router.internal", "DNS:other.internal")
    async with billing(tmp_path, plant, tls_service_names="router.internal") as host:
        assert not await admitted(plant.channel(host.bound_ports[1], certificate))


async def test_a_wrong_token_is_refused_whatever_the_certificate_says(tmp_path: Path, plant: Plant) -> None:
    certificate = plant.clients.issue("other", "DNS:other.internal")
    async with billing(tmp_path, plant, tls_service_names=ROUTER) as host:
        _, error = await failure_of(authenticate(plant.channel(host.bound_ports[1], certificate), bearer("wrong")))
    assert "own services" in error.message


@pytest.mark.parametrize(("listed", "token"), [("", INTERNAL_TOKEN), (ROUTER, "wrong")])
async def test_services_reach_one_another(tmp_path: Path, plant: Plant, listed: str, token: str) -> None:
    quota = QuotaSettings(
        data_dir=tmp_path,
        quota_address="127.0.0.1:0",
        admin_port_base=0,
        internal_token=Secret(INTERNAL_TOKEN),
        **plant.settings(tls_service_names=listed),
    )
    caller = plant.clients.issue("router", f"URI:{ROUTER}")
    settings = CommonSettings(
        internal_token=Secret(token),
        **plant.settings(tls_cert_file=caller.certificate, tls_key_file=caller.key),
    )
    async with running_quota(quota, SystemClock()) as (host, _):
        await host.start()
        connection = connect(f"127.0.0.1:{host.bound_ports[0]}", settings)
        call = QuotaServiceStub(connection.channel).GetQuota(
            quota_pb.GetQuotaRequest(account_id="acct_none"), metadata=connection.metadata, timeout=30
        )
        _, error = await failure_of(call)
        assert error.reason is Reason.ENTITLEMENT_MISSING
        await connection.close()
        await host.drain(0)


async def test_the_authority_of_clients_vouches_for_servers_where_no_other_is_set(tmp_path: Path, plant: Plant) -> None:
    server = plant.clients.issue("server", *HERE)
    own = plant.settings(tls_cert_file=server.certificate, tls_key_file=server.key, tls_server_ca_file=None)
    settings: BillingSettings = settings_for(tmp_path, "127.0.0.1:1", **own)
    async with running_billing(settings, SystemClock(), QUICK) as host:
        await host.start()
        connection = connect(f"127.0.0.1:{host.bound_ports[1]}", settings)
        assert await admitted(connection.channel, connection.metadata)
        await host.drain(0)


async def test_a_server_of_another_authority_is_not_trusted(tmp_path: Path, plant: Plant) -> None:
    settings = settings_for(tmp_path / "caller", "127.0.0.1:1", **plant.settings(tls_server_ca_file=plant.clients.file))
    async with billing(tmp_path, plant) as host:
        connection = connect(f"127.0.0.1:{host.bound_ports[1]}", settings)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await authenticate(connection.channel, connection.metadata)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
