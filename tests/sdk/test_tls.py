"""`https://` addresses: whom the SDK trusts, what it says of others, and that it never falls back to plaintext."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import usage_service_pb2, usage_service_pb2_grpc

from flowstack import Agent, AsyncAgent, ConfigurationError, ConnectionFailedError, UntrustedServerError
from tests.grpc.shared.certificates import Authority, Certificate
from tests.support.suite import free_ports

KEY = "fs_" + "0" * 75
SETTING = "FLOWSTACK_TLS_SERVER_CA_FILE"
HERE = ("DNS:localhost", "IP:127.0.0.1")


class Usages(usage_service_pb2_grpc.UsageServiceServicer):
    """Answers who has called with which key."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def GetUsage(self, request: Any, context: Any) -> usage_service_pb2.GetUsageResponse:
        self.keys.append(dict(context.invocation_metadata())["authorization"])
        return usage_service_pb2.GetUsageResponse(usage=usage_service_pb2.Usage(account_id="acct_tls"))


@contextmanager
def billing(certificate: Certificate | None) -> Iterator[tuple[int, Usages]]:
    """A server of one method, over TLS where it has a certificate; its port."""
    usages = Usages()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    usage_service_pb2_grpc.add_UsageServiceServicer_to_server(usages, server)
    if certificate is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pair = (certificate.key.read_bytes(), certificate.certificate.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield port, usages
    finally:
        server.stop(0).wait()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "ours")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("here", *HERE)


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, str(authority.file))


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_server_of_a_trusted_authority_is_called(certificate: Certificate, host: str) -> None:
    with billing(certificate) as (port, usages):
        with Agent("a", KEY, endpoint=f"https://{host}:{port}") as agent:
            assert agent.get_usage().account_id == "acct_tls"
        async with AsyncAgent("a", KEY, endpoint=f"https://{host}:{port}") as other:
            assert (await other.get_usage()).account_id == "acct_tls"
        assert usages.keys == [f"Bearer {KEY}"] * 2


async def refused(address: str, kind: type[ConnectionFailedError] = UntrustedServerError) -> str:
    """What both agents say of a server that they do not call."""
    with Agent("a", KEY, endpoint=address) as agent, pytest.raises(kind) as caught:
        agent.get_usage()
    async with AsyncAgent("a", KEY, endpoint=address) as other:
        with pytest.raises(kind) as again:
            await other.get_usage()
    assert str(caught.value) == str(again.value)
    assert caught.value.details == {"service": "billing", "address": address}
    return str(caught.value)


async def test_a_server_that_nobody_vouches_for_is_refused(certificate: Certificate) -> None:
    with billing(certificate) as (port, usages):
        address = f"https://127.0.0.1:{port}"
        assert await refused(address) == (
            f"FlowStack's billing service at {address} was not called: its certificate is signed by nobody who is "
            f"trusted here. Set {SETTING} to the file with its authority's certificate, if that is to be trusted. "
            "Nothing was sent to it."
        )
        assert usages.keys == []


@pytest.mark.usefixtures("trusted")
async def test_a_server_of_another_authority_is_refused(tmp_path: Path) -> None:
    with billing(Authority(tmp_path, "theirs").issue("here", *HERE)) as (port, usages):
        assert "signed by nobody who is trusted here" in await refused(f"https://127.0.0.1:{port}")
        assert usages.keys == []


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_for_another_name_is_refused(authority: Authority) -> None:
    with billing(authority.issue("elsewhere", "DNS:elsewhere.example")) as (port, usages):
        address = f"https://127.0.0.1:{port}"
        assert await refused(address) == (
            f"FlowStack's billing service at {address} was not called: its certificate is for another name. Address it "
            "in endpoint by a name that stands in the certificate. Nothing was sent to it."
        )
        assert usages.keys == []


@pytest.mark.usefixtures("trusted")
async def test_there_is_no_falling_back_to_plaintext() -> None:
    with billing(None) as (port, usages):
        address = f"https://127.0.0.1:{port}"
        assert await refused(address) == (
            f"FlowStack's billing service at {address} was not called: it does not speak TLS there. Correct endpoint: "
            "another port, or http:// if it is to be plaintext. Nothing was sent to it."
        )
        assert usages.keys == []


@pytest.mark.usefixtures("trusted")
async def test_the_key_is_in_nothing_that_leaves_before_the_handshake() -> None:
    sent = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.extend(await reader.read(65536))
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncAgent("a", KEY, endpoint=f"https://127.0.0.1:{port}") as agent:
            with pytest.raises(ConnectionFailedError, match="cannot be reached"):
                await agent.get_usage()
    assert sent[:1] == b"\x16"  # a TLS handshake, and so not HTTP/2's preface
    assert KEY.encode() not in sent


@pytest.mark.usefixtures("trusted")
async def test_a_server_that_is_not_there_is_told_as_without_tls() -> None:
    address = f"https://127.0.0.1:{free_ports(1)[0]}"
    assert await refused(address, ConnectionFailedError) == (
        f"FlowStack's billing service cannot be reached at {address}. Check that it runs (`flowstack doctor`, or `make "
        "run` on your own machine) and that endpoint names it."
    )


def cannot_be_reached(address: str, hint: str) -> str:
    return (
        f"FlowStack's billing service cannot be reached at {address}. Check that it runs (`flowstack doctor`, or `make "
        f"run` on your own machine) and that endpoint names it. If what listens there {hint}"
    )


@pytest.mark.parametrize("scheme", ["", "http://"])
async def test_plaintext_finds_no_server_that_takes_tls(certificate: Certificate, scheme: str) -> None:
    with billing(certificate) as (port, usages):
        address = f"localhost:{port}"
        with Agent("a", KEY, endpoint=scheme + address) as agent, pytest.raises(ConnectionFailedError) as caught:
            agent.get_usage()
        hint = f"takes TLS only, write https://{address}."
        assert str(caught.value) == cannot_be_reached(address, hint)
        assert await refused(address, ConnectionFailedError) == cannot_be_reached(address, hint)
        assert usages.keys == []


async def answering(answer: bytes, scheme: str) -> str:
    """What is said of a server that reads something, answers this to it, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = f"{scheme}127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AsyncAgent("a", KEY, endpoint=address) as agent:
            with pytest.raises(ConnectionFailedError) as caught:
                await agent.get_usage()
    return str(caught.value).replace(address, "HERE").replace(address.removeprefix(scheme), "HERE")


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x15\x03\x01\x00\x02\x02\x46", b"HTTP/1.1 400 Bad Request\r\n\r\nThis port takes HTTPS.\n"],
    ids=["nothing", "an alert of TLS", "an answer of HTTP"],
)
async def test_what_hangs_up_on_plaintext_may_take_tls(answer: bytes) -> None:
    assert await answering(answer, "") == cannot_be_reached("HERE", "takes TLS only, write https://HERE.")


@pytest.mark.usefixtures("trusted")
async def test_what_hangs_up_on_a_handshake_may_take_plaintext() -> None:
    assert await answering(b"", "https://") == cannot_be_reached("HERE", "takes no TLS, write http://HERE.")


def test_agents_with_other_authorities_do_not_share_a_channel(
    certificate: Certificate, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with billing(certificate) as (port, _):
        address = f"https://127.0.0.1:{port}"
        monkeypatch.setenv(SETTING, str(authority.file))
        with Agent("trusting", KEY, endpoint=address) as trusting:
            assert trusting.get_usage().account_id == "acct_tls"
            monkeypatch.delenv(SETTING)
            with Agent("other", KEY, endpoint=address) as other, pytest.raises(UntrustedServerError):
                other.get_usage()


def test_a_file_without_certificates_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    for file, says in ((empty, "holds no certificate in PEM"), (tmp_path / "missing.pem", "cannot be read")):
        monkeypatch.setenv(SETTING, str(file))
        with pytest.raises(ConfigurationError, match=says) as caught:
            Agent("a", KEY, endpoint="https://api.example")
        assert str(caught.value).startswith(f"{SETTING} names {file}, which ")
        Agent("a", KEY, endpoint="http://api.example").close()  # plaintext needs none
