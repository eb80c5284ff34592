"""HTTP over TLS, and on the event loop that the services run on as well as on asyncio's own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from services.router.providers import http
from tests.grpc.shared.certificates import Authority, Certificate
from tests.support.raw_http import CHUNKED, Server, ask, chunk, read, serving

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
WORDS = 400
ANSWER = CHUNKED + chunk(b"x" * 1_000) * WORDS + b"0\r\n\r\n"


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a coroutine on each event loop in turn."""

    def on_loop(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(work)

    return on_loop


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority of ours")


def trusting(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the client trust `authority` and no other."""
    context = ssl.create_default_context(cafile=str(authority.file))
    monkeypatch.setattr(http, "_certificates", lambda: context)


def served_with(issued: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    return context


async def asked_twice(server: Server, tls: ssl.SSLContext | None) -> None:
    async with serving(server, tls) as client:
        for _ in range(2):
            response = await ask(client, server, b"y" * 1_000_000)
            reads = await read(response)
            response.close()
            assert sum(map(len, reads)) == WORDS * 1_000
            assert max(map(len, reads)) <= 64 * 1024

    assert server.connections == 1
    assert [len(body) for body in server.bodies] == [1_000_000] * 2


def test_in_plain(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    run(asked_twice(Server(ANSWER), None))


def test_over_tls(
    run: Callable[[Coroutine[Any, Any, None]], None], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting(authority, monkeypatch)
    run(asked_twice(Server(ANSWER), served_with(authority.issue("right", "DNS:localhost"))))


@pytest.mark.parametrize("wrong", ["unknown authority", "another name"])
def test_a_server_that_does_not_prove_its_name_is_told_nothing(
    run: Callable[[Coroutine[Any, Any, None]], None],
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    wrong: str,
) -> None:
    if wrong == "another name":
        trusting(authority, monkeypatch)
    name = "DNS:localhost" if wrong == "unknown authority" else "DNS:elsewhere.example"
    tls = served_with(authority.issue(wrong.replace(" ", "-"), name))
    server = Server(ANSWER)

    async def refused() -> None:
        async with serving(server, tls) as client:
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(client, server)

    run(refused())
    assert server.heads == []
    assert issubclass(ssl.SSLCertVerificationError, http.NETWORK_ERRORS)


async def test_a_connection_that_takes_too_long_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    client = http.HttpClient(connect_s=0.05)
    target = http.Target.of(f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/")
    with pytest.raises(TimeoutError):
        await client.post(target, b"", b"", lambda: None)
    await client.aclose()
    listener.close()
