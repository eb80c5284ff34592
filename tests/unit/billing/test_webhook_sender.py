"""Guarded delivery: which addresses are connected to, and what becomes of receivers that misbehave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.billing.adapters.webhooks.addresses import RefusedError, SystemLookup, guarded_socket
from services.billing.adapters.webhooks.sender import ANSWER_BYTES_MAX, GuardedSender
from services.billing.domain.targets import is_allowed, networks_of
from services.billing.domain.webhooks import AttemptResult, DeliveryFailure, WebhookFormat
from services.shared.errors import FlowStackError
from services.shared.secret import Secret
from tests.support import receiver as behaviours
from tests.support.receiver import CHUNKED, Names, Receiver, answering

LOOPBACK = networks_of("127.0.0.0/8")
METADATA = "169.254.169.254"


def sender_of(names: Names, **options: Any) -> GuardedSender:
    return GuardedSender(names, **({"operators": LOOPBACK, "allow_http": True} | options))


async def post(sender: GuardedSender, url: str) -> AttemptResult:
    return await sender.post("acct_1", Secret(url), {"webhook-id": "alert_1"}, '{"a":1}')


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16", "198.18.0.1", "224.0.0.1", "255.255.255.255",
        "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1",
        "fec0::1", "64:ff9b:1::1", "2001:0:4136:e378:8000:63bf:f7f7:f7f7", "not an address", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not is_allowed(address, ())


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(address, ())


# IANA's registries of special-purpose addresses (iana.org/assignments/iana-ipv4-special-registry and
# iana-ipv6-special-registry): what is not globally reachable, deprecated or reserved.
SPECIAL = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "240.0.0.0/4", "255.255.255.255/32", "::/128", "::1/128", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64",
    "2001::/23", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:2::/48", "2001:3::/32", "2001:4:112::/48",
    "2001:10::/28", "2001:20::/28", "2001:30::/28", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10",
)  # fmt: skip


@pytest.mark.parametrize("network", SPECIAL)
def test_special_purpose_addresses_are_refused(network: str) -> None:
    (parsed,) = networks_of(network)
    for address in (parsed[0], parsed[parsed.num_addresses // 2], parsed[-1]):
        assert not is_allowed(str(address), ()), address


def test_addresses_beside_special_purpose_ones_are_allowed() -> None:
    for address in ("2001:200::1", "3ffe:ffff::1", "2001:db7::1", "2001:db9::1", "192.0.1.1", "198.17.255.255"):
        assert is_allowed(address, ()), address


def test_the_operator_allows_what_it_names_and_no_more() -> None:
    operators = networks_of("10.1.0.0/16, fd00::/8")
    assert is_allowed("10.1.2.3", operators)
    assert is_allowed("fd00::1", operators)
    assert not is_allowed("10.2.0.1", operators)
    assert not is_allowed(METADATA, operators)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data", "http://metadata.example/", "https://[::1]/", "https://2130706433/",
        "https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/", "https://[::ffff:10.0.0.1]/", "file:///etc/passwd",
        "https://", "https://host:99999/", "gopher://example.org/", "https://localhost/",
    ],
)  # fmt: skip
async def test_addresses_are_checked_when_a_webhook_is_created(url: str) -> None:
    lookup = SystemLookup()
    names = Names(**{"metadata.example": [METADATA]})

    async def resolve(host: str, port: int) -> Any:
        # Odd spellings of literals are the system's to understand.
        return await (names if host in names.answers else lookup)(host, port)

    sender = GuardedSender(resolve, allow_http=True)
    with pytest.raises(FlowStackError) as raised:
        await sender.check("acct_1", url, WebhookFormat.STANDARD)
    assert [violation.field for violation in raised.value.violations] == ["url"]
    lookup.close()


async def test_plain_http_is_the_operators_to_allow() -> None:
    with pytest.raises(FlowStackError, match="https://"):
        await GuardedSender(Names(public=["8.8.8.8"])).check("acct_1", "http://public/", WebhookFormat.STANDARD)


@pytest.mark.parametrize(
    ("url", "form", "shown"),
    [
        ("https://u:p@public/a/b?token=1", WebhookFormat.STANDARD, "https://…@public/a/b?…"),
        ("https://public:8443/services/T0/B0/x", WebhookFormat.SLACK, "https://public:8443/…"),
        ("https://later.example/x", WebhookFormat.STANDARD, "https://later.example/x"),
    ],
)
async def test_what_of_an_address_is_shown(url: str, form: WebhookFormat, shown: str) -> None:
    assert await sender_of(Names(public=["8.8.8.8"])).check("acct_1", url, form) == shown


async def test_a_name_that_turns_to_the_metadata_address_is_refused_at_the_moment_of_sending() -> None:
    async with Receiver() as receiver:
        names = Names()
        names.set("rebinding", ["127.0.0.1"], ["127.0.0.1"], [METADATA])
        sender = sender_of(names)
        await sender.check("acct_1", receiver.url(host="rebinding"), WebhookFormat.STANDARD)
        assert await post(sender, receiver.url(host="rebinding")) == (DeliveryFailure.NONE, 200, 0.0)
        assert await post(sender, receiver.url(host="rebinding")) == (DeliveryFailure.ADDRESS_REFUSED, 0, 0.0)
        # Asked once for each: what was checked is what is connected to.
        assert names.asked == ["rebinding"] * 3
        assert len(receiver.received) == 1


async def test_a_name_with_one_refused_address_among_allowed_ones_is_refused() -> None:
    async with Receiver() as receiver:
        result = await post(sender_of(Names(mixed=["127.0.0.1", METADATA])), receiver.url(host="mixed"))
        assert result.failure is DeliveryFailure.ADDRESS_REFUSED
        assert receiver.received == []


def test_a_socket_is_made_for_no_address_that_was_not_checked() -> None:
    make = guarded_socket(["127.0.0.1"])
    with pytest.raises(RefusedError):
        make((2, 1, 6, "", (METADATA, 80)))


@pytest.mark.parametrize(
    ("behaviour", "failure", "status"),
    [
        (answering("204 No Content"), DeliveryFailure.NONE, 204),
        (answering("302 Found", "location: http://169.254.169.254/"), DeliveryFailure.REDIRECTED, 302),
        (answering("500 Oops"), DeliveryFailure.STATUS, 500),
        (answering("404 No"), DeliveryFailure.STATUS, 404),
        (answering("200 OK", "content-length: 1000", body=b"short"), DeliveryFailure.MALFORMED, 200),
        (answering("200 OK", "content-length: nonsense"), DeliveryFailure.MALFORMED, 0),
        (answering("200 OK", f"x: {'y' * 20000}"), DeliveryFailure.MALFORMED, 0),
        (behaviours.flood, DeliveryFailure.MALFORMED, 200),
        (behaviours.babble, DeliveryFailure.MALFORMED, 0),
        (behaviours.drop, DeliveryFailure.UNREACHABLE, 0),
    ],
)
async def test_what_becomes_of_an_attempt(behaviour: Any, failure: DeliveryFailure, status: int) -> None:
    async with Receiver(behaviour) as receiver:
        result = await post(sender_of(Names()), receiver.url())
        assert (result.failure, result.http_status) == (failure, status)
        assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("head", "part"),
    [
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, id="heads before the answer"),
        pytest.param(b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 2000, id="early hints"),
        pytest.param(CHUNKED + b"1;a=", b"b" * 65536, id="a chunk's extension"),
        pytest.param(CHUNKED, b"0" * 65536, id="a chunk's size"),
        pytest.param(CHUNKED, b"1\r\nx\r\n" * 3000, id="tiny chunks"),
        pytest.param(CHUNKED + b"0\r\n", b"x: y\r\n" * 2000, id="trailers"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 2000, id="headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 65536, id="one header"),
        pytest.param(b"HTTP/1.1 200 ", b"O" * 65536, id="a status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536, id="a body without a length"),
    ],
)
async def test_an_answer_without_end_is_cut_off_by_its_size(head: bytes, part: bytes) -> None:
    async with Receiver(behaviours.endless(head, part)) as receiver:
        assert (await post(sender_of(Names(), timeout_s=60), receiver.url())).failure is DeliveryFailure.MALFORMED


async def test_an_answer_of_the_largest_size_is_read_to_its_end() -> None:
    body = b"x" * ANSWER_BYTES_MAX
    async with Receiver(answering("200 OK", body=body)) as receiver:
        assert (await post(sender_of(Names()), receiver.url())).failure is DeliveryFailure.NONE


@pytest.mark.parametrize("behaviour", [behaviours.hang, behaviours.trickle])
async def test_a_receiver_that_does_not_come_to_an_end_is_cut_off(behaviour: Any) -> None:
    async with Receiver(behaviour) as receiver:
        result = await post(sender_of(Names(), timeout_s=0.2), receiver.url())
        assert result.failure is DeliveryFailure.TIMED_OUT


async def test_a_name_that_does_not_resolve_in_time_is_cut_off() -> None:
    async def never(host: str, port: int) -> Any:
        await asyncio.Event().wait()

    result = await post(GuardedSender(never, timeout_s=0.05), "https://slow.example/")
    assert result.failure is DeliveryFailure.TIMED_OUT


async def test_nobody_there() -> None:
    async with Receiver() as receiver:
        url = receiver.url()
    assert (await post(sender_of(Names()), url)).failure is DeliveryFailure.UNREACHABLE
    assert (await post(sender_of(Names()), "http://nowhere.example/")).failure is DeliveryFailure.UNRESOLVED


async def test_a_receiver_without_tls_is_not_spoken_to_in_plain() -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(5))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert (await post(sender_of(Names()), url)).failure is DeliveryFailure.TLS
    # A handshake of TLS, and nothing of the request.
    assert heard[0].startswith(b"\x16\x03")


async def test_a_busy_receiver_says_when_to_come_again() -> None:
    async with Receiver(answering("503 Busy", "retry-after: 120")) as receiver:
        assert (await post(sender_of(Names()), receiver.url())).retry_after_s == 120


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as proxy, Receiver() as receiver:
        monkeypatch.setenv("HTTP_PROXY", proxy.url(""))
        monkeypatch.setenv("http_proxy", proxy.url(""))
        assert (await post(sender_of(Names()), receiver.url())).failure is DeliveryFailure.NONE
        assert proxy.received == []
        assert receiver.received[0].headers["content-type"] == "application/json"
