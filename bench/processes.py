"""Servers under measurement, each a process of its own on loopback."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from services.shared.channel import Metadata, ServiceChannel

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "bench-data-"
"""Begins the names of the folders of a run's data, on the disk of the tree because a commit has to be durable there."""
READY_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A running server, and a channel to it."""

    process: subprocess.Popen[bytes]
    data: Path
    address: str
    channel: ServiceChannel

    @property
    def process_id(self) -> int:
        """The process's id."""
        return self.process.pid

    def resident_bytes(self) -> int:
        """The memory that the process holds now."""
        pages = int(Path(f"/proc/{self.process_id}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """The processor time that the process has used so far, in seconds."""
        return cpu_s(self.process_id)

    def terminate(self) -> None:
        """Asks the process to end, and waits until it has."""
        self.process.terminate()
        self.process.wait(READY_SECONDS)


def cpu_s(process_id: int) -> float:
    """The processor time that a process has used so far, in seconds."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def allow_many_files() -> None:
    """Raises this process's limit of open files, and its children's, to what the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def child(arguments: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program until the block ends."""
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@asynccontextmanager
async def running(arguments: list[str], address: str, data: Path, environment: dict[str, str]) -> AsyncIterator[Server]:
    """Runs a server until the block ends."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ | environment, stderr=subprocess.DEVNULL
    )
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            await asyncio.wait_for(channel.channel_ready(), READY_SECONDS)
            token = data / "internal-token"
            metadata: Metadata = ()
            if token.exists():
                metadata = (("authorization", f"Bearer {token.read_text().strip()}"),)
            yield Server(process, data, address, ServiceChannel(channel, metadata))
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


@asynccontextmanager
async def quota_server(data: Path) -> AsyncIterator[Server]:
    """The quota service on SQLite below `data`, which has to be on a real disk for its commits to be durable."""
    address = f"127.0.0.1:{free_port()}"
    environment = {
        "FLOWSTACK_DATA_DIR": str(data),
        "FLOWSTACK_QUOTA_ADDRESS": address,
        "FLOWSTACK_ADMIN_PORT_BASE": "0",
        "FLOWSTACK_EXPIRY_HOLD_SECONDS": "0",
    }
    async with running(["-m", "services.quota"], address, data, environment) as server:
        yield server


@dataclass(frozen=True)
class BillingServer:
    """A running billing service: a channel to each port, with the token that it takes."""

    public: ServiceChannel
    internal: ServiceChannel


@asynccontextmanager
async def billing_server(
    data: Path, database: str, quota_address: str, **settings: str
) -> AsyncIterator[BillingServer]:
    """The billing service on a database with the current schema, with its secrets below `data`."""
    public, internal = (f"127.0.0.1:{free_port()}" for _ in range(2))
    environment = {
        "FLOWSTACK_DATA_DIR": str(data),
        "FLOWSTACK_BILLING_DATABASE": database,
        "FLOWSTACK_BILLING_ADDRESS": public,
        "FLOWSTACK_BILLING_INTERNAL_ADDRESS": internal,
        "FLOWSTACK_QUOTA_ADDRESS": quota_address,
        "FLOWSTACK_ADMIN_PORT_BASE": "0",
        "FLOWSTACK_LOG_LEVEL": "error",
        **settings,
    }
    async with running(["-m", "services.billing"], internal, data, environment) as server:
        token = (data / "admin-token").read_text().strip()
        async with grpc.aio.insecure_channel(public) as channel:
            await asyncio.wait_for(channel.channel_ready(), READY_SECONDS)
            yield BillingServer(ServiceChannel(channel, (("authorization", f"Bearer {token}"),)), server.channel)


@asynccontextmanager
async def echo_server(data: Path) -> AsyncIterator[Server]:
    """The reference: a bare grpc.aio server that answers the same messages and does nothing."""
    address = f"127.0.0.1:{free_port()}"
    async with running(["-m", "bench.echo_server", address], address, data, {}) as server:
        yield server
