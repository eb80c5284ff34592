"""HTTP as the providers use it, over real sockets: what comes back, what is kept, and what is never taken."""

from __future__ import annotations

import asyncio

import pytest

from services.router.providers import http
from services.router.providers.http import Address, HttpError, Target, header_lines
from tests.support.raw_http import CHUNKED, Server, ask, chunk, fixed, read, serving

WHOLE = {
    "of a length": (fixed(b"hello"),),
    "in chunks": (CHUNKED + chunk(b"hel") + chunk(b"lo") + b"0\r\n\r\n",),
    "with a trailer": (CHUNKED + chunk(b"hello") + b"0\r\nX-Late: 1\r\n\r\n",),
    "with chunk extensions": (CHUNKED + b"5;a=b\r\nhello\r\n0\r\n\r\n",),
    "after others that say nothing": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + fixed(b"hello"),
    ),
    "a byte at a time": tuple(bytes([byte]) for byte in CHUNKED + chunk(b"hello") + b"0\r\n\r\n"),
}


@pytest.mark.parametrize("how", WHOLE)
async def test_a_whole_answer_and_the_connection_is_used_again(how: str) -> None:
    server = Server(*WHOLE[how])
    async with serving(server) as client:
        for _ in range(3):
            response = await ask(client, server, b'{"a":1}')
            assert (response.status, b"".join(await read(response)), response.at_end) == (200, b"hello", True)
            response.close()

    assert server.connections == 1
    assert server.bodies == [b'{"a":1}'] * 3
    first, *lines = server.heads[0].decode().removesuffix("\r\n\r\n").split("\r\n")
    assert first == "POST /v1/ask?x=%20 HTTP/1.1"
    assert lines == [f"Host: {server.target.host}", "Content-Length: 7", "X-Key: k"]


async def test_an_empty_answer() -> None:
    server = Server(b"HTTP/1.1 204 No Content\r\n\r\n")
    async with serving(server) as client:
        for _ in range(2):
            response = await ask(client, server)
            assert (response.status, await read(response)) == (204, [])
            response.close()

    assert server.connections == 1


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\n\r\n", b"hel", b"lo", closes=True)
    async with serving(server) as client:
        for _ in range(2):
            response = await ask(client, server)
            assert b"".join(await read(response)) == b"hello"
            response.close()

    assert server.connections == 2


CUT = {
    "of a length": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome",
    "in chunks": CHUNKED + chunk(b"some"),
    "within a chunk": CHUNKED + b"9\r\nsome",
}


@pytest.mark.parametrize("how", CUT)
async def test_a_body_that_is_cut_is_told_after_what_came(how: str) -> None:
    server = Server(CUT[how], closes=True)
    async with serving(server) as client:
        response = await ask(client, server)
        assert await response.read() == b"some"
        with pytest.raises(http.NETWORK_ERRORS):
            await response.read()
        assert not response.at_end
        response.close()


NO_HTTP = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "a head without end": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 300_000,
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50_000,
    "heads without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
}


@pytest.mark.parametrize("what", NO_HTTP)
async def test_what_is_no_answer_is_a_network_error(what: str) -> None:
    server = Server(NO_HTTP[what], closes=True)
    async with serving(server) as client:
        with pytest.raises(http.NETWORK_ERRORS):
            await ask(client, server)
        await asyncio.wait_for(server.lost.acquire(), 20)


async def test_a_trailer_without_end_breaks_the_answer_off() -> None:
    server = Server(CHUNKED + chunk(b"a") + b"0\r\n" + b"A: b\r\n" * 50_000)
    async with serving(server) as client:
        response = await ask(client, server)
        with pytest.raises(HttpError):
            await read(response)
        response.close()


ANSWERS_FOR_NOBODY = {
    "in one piece": (fixed(b"mine") + fixed(b"not mine"),),
    "later": (fixed(b"mine"), fixed(b"not mine")),
}


@pytest.mark.parametrize("how", ANSWERS_FOR_NOBODY)
async def test_a_second_answer_is_nobodys(how: str) -> None:
    """Or the next caller on the connection would get what was meant for the one before."""
    server = Server(*ANSWERS_FOR_NOBODY[how])
    async with serving(server) as client:
        for _ in range(3):
            response = await ask(client, server)
            assert b"".join(await read(response)) == b"mine"
            response.close()
            await asyncio.wait_for(server.lost.acquire(), 20)

    assert server.connections == 3


@pytest.mark.parametrize("line", [b"Connection: close", b"Keep-Alive: x"], ids=["closes", "keeps"])
async def test_a_connection_is_kept_unless_the_answer_says_otherwise(line: bytes) -> None:
    server = Server(fixed(b"x", line))
    async with serving(server) as client:
        for _ in range(2):
            response = await ask(client, server)
            await read(response)
            response.close()

    assert server.connections == (2 if b"close" in line else 1)


async def test_an_answer_that_is_left_closes_its_connection() -> None:
    server = Server(CHUNKED + chunk(b"a"))
    async with serving(server) as client:
        response = await ask(client, server)
        await response.read()
        response.close()
        response.close()
        await asyncio.wait_for(server.lost.acquire(), 20)
        await ask(client, server)

    assert server.connections == 2


async def test_callers_at_the_same_time_have_connections_of_their_own() -> None:
    server = Server(fixed(b"x"))
    async with serving(server) as client:
        responses = await asyncio.gather(*(ask(client, server) for _ in range(5)))
        for response in responses:
            assert await read(response) == [b"x"]
            response.close()
        for _ in range(5):
            response = await ask(client, server)
            await read(response)
            response.close()

    assert server.connections == 5


async def test_a_connection_that_nobody_uses_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "KEEPALIVE_SECONDS", 0.0)
    server = Server(fixed(b"x"))
    async with serving(server) as client:
        response = await ask(client, server)
        await read(response)
        response.close()
        await asyncio.wait_for(server.lost.acquire(), 20)
        assert client._idle == {}


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again() -> None:
    server = Server(fixed(b"x"), closes=True)
    async with serving(server) as client:
        for _ in range(2):
            response = await ask(client, server)
            await read(response)
            response.close()
            while client._open:
                # The end of the connection is on its way through the loop.
                await asyncio.sleep(0)

    assert server.connections == 2


@pytest.mark.parametrize("shape", ["400 chunks", "one chunk"])
async def test_a_read_hands_on_a_bounded_piece_however_much_has_come(shape: str) -> None:
    """What one read brings is parsed in one turn of the loop, in which nobody else gets on."""
    pieces = 400
    data = b"x" * 1_000
    body = chunk(data) * pieces if shape == "400 chunks" else chunk(data * pieces)
    server = Server(CHUNKED + body + b"0\r\n\r\n")
    async with serving(server) as client:
        response = await ask(client, server)
        for _ in range(100):
            # Whatever has come is there before the first read.
            await asyncio.sleep(0)
        reads = await read(response)
        response.close()

    assert sum(len(one) for one in reads) == pieces * len(data)
    assert max(len(one) for one in reads) <= 64 * 1024


async def test_nobody_reads_and_the_server_comes_to_a_halt() -> None:
    sent = 0

    class Endless(Server):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(CHUNKED)
            try:
                while True:
                    writer.write(chunk(b"x" * 65_536))
                    sent += 1
                    await writer.drain()
            except OSError:
                # The client has closed.
                writer.close()

    server = Endless()
    async with serving(server) as client:
        response = await ask(client, server)
        before = -1
        while before != sent:
            before = sent
            for _ in range(200):
                await asyncio.sleep(0)
        connection = response._connection
        assert connection is not None
        assert connection._size < 64 * 1024
        while sent == before:
            await response.read()
        response.close()


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity", ""])
async def test_an_encoded_refusal_says_nothing(encoding: str) -> None:
    line = (f"Content-Encoding: {encoding}".encode(),) if encoding else ()
    server = Server(fixed(b"why", *line))
    async with serving(server) as client:
        response = await ask(client, server)
        expected = b"why" if encoding in ("identity", "") else b""
        assert await response.read_error() == expected


async def test_a_refusal_is_read_up_to_a_bound() -> None:
    server = Server(CHUNKED + chunk(b"x" * (4 * http.ERROR_BYTES_MAX)))
    async with serving(server) as client:
        response = await ask(client, server)
        assert http.ERROR_BYTES_MAX <= len(await response.read_error()) < http.ERROR_BYTES_MAX + 64 * 1024
        await asyncio.wait_for(server.lost.acquire(), 20)


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "a\r\n", "a\u2028b"])
def test_a_header_never_becomes_two(value: str) -> None:
    with pytest.raises(ValueError, match="must not"):
        header_lines({"Authorization": value, "B": "c"})


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://api.openai.com/v1/x", Target(Address("api.openai.com", 443, True), "api.openai.com", "/v1/x")),
        ("https://h:443", Target(Address("h", 443, True), "h", "/")),
        ("http://h:8000/a?b=c", Target(Address("h", 8000, False), "h:8000", "/a?b=c")),
        ("http://[::1]:8000/", Target(Address("::1", 8000, False), "[::1]:8000", "/")),
        ("http://H/a%3Ab", Target(Address("h", 80, False), "h", "/a%3Ab")),
    ],
)
def test_where_a_request_goes(url: str, target: Target) -> None:
    assert Target.of(url) == target


@pytest.mark.parametrize("url", ["ftp://h/", "h:80", "https:///x", ""])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="begins with http"):
        Target.of(url)
