"""Addresses: what is one, who can reach it, and why it cannot be listened on."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from services.shared.addresses import is_loopback, listening_problem, other_port, parse


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("localhost:0", "localhost", 0),
        ("[::1]:65535", "::1", 65535),
        ("quota.internal:1", "quota.internal", 1),
        ("dns:///quota.internal:50052", "dns:///quota.internal", 50052),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert (parse(text).host, parse(text).port) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "", "localhost", ":50051", "127.0.0.1:", "127.0.0.1:abc", "127.0.0.1:99999", "127.0.0.1:65536",
        "127.0.0.1:-1", "127.0.0.1:+1", "127.0.0.1:٣", "127.0.0.1: 1", "::1:50051", "[::1]", "[nothing]:1", "unix:",
        "http://127.0.0.1:1", "a b:1", "1_0:1_0",
    ],
)  # fmt: skip
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="has to be host:port"):
        parse(text)


@pytest.mark.parametrize(("text", "path"), [("unix:/run/x", "/run/x"), ("unix:///run/x", "/run/x"), ("unix:x", "x")])
def test_a_socket_file_is_an_address(text: str, path: str) -> None:
    assert parse(text).path == path


@pytest.mark.parametrize("text", ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1", "unix:/run/x"])
def test_loopback(text: str) -> None:
    assert is_loopback(text)


@pytest.mark.parametrize(
    "text", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", "localhost.example.org:1", "dns:///localhost:1"]
)
def test_beyond_loopback(text: str) -> None:
    assert not is_loopback(text)


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        held: list[socket.socket] = []
        assert listening_problem(f"127.0.0.1:{number}", held) == f"port {number} is taken"
        assert held == []
    assert listening_problem(f"127.0.0.1:{number}", held) is None
    # It is held now, and cannot be had twice.
    assert listening_problem(f"127.0.0.1:{number}", held) == f"port {number} is taken"
    for one in held:
        one.close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("192.0.2.1:0", "not an address of this machine"),
        ("nothing.invalid:1", "not known"),
        ("unix:/nonexistent/x", "/nonexistent is not a folder"),
        (f"unix:/tmp/{'x' * 200}", "too long"),
    ],
)
def test_other_problems_are_told_as_what_they_are(address: str, says: str) -> None:
    assert says in (listening_problem(address, []) or "")


def test_a_socket_file_in_use_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(tmp_path / "s"))
        taken.listen()
        assert "in use" in (listening_problem(f"unix:{tmp_path}/s", []) or "")
    # A file that a dead process has left is not in the way.
    assert listening_problem(f"unix:{tmp_path}/s", []) is None


def test_another_port_is_always_one() -> None:
    assert other_port("127.0.0.1:50051") == "127.0.0.1:50151"
    assert other_port("[::1]:65535") == "[::1]:65435"
