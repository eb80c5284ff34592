"""The router as a process of its own, with a fake quota and a fake billing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from flowstack_protos.billing.v1 import account_service_pb2 as billing_pb
from flowstack_protos.billing.v1 import account_service_pb2_grpc as billing_grpc
from flowstack_protos.router.v1 import router_service_pb2_grpc as pb_grpc

from tests.grpc.router.harness import API_KEY, METADATA, echo_request
from tests.support.fake_quota import FakeQuota

ROOT = Path(__file__).parents[3]


class FakeBilling(billing_grpc.AccountServiceServicer):
    async def AuthenticateApiKey(
        self, request: billing_pb.AuthenticateApiKeyRequest, context: Any
    ) -> billing_pb.AuthenticateApiKeyResponse:
        assert request.api_key == API_KEY
        return billing_pb.AuthenticateApiKeyResponse(account_id="acct_1", api_key_id="key_1")


async def start(settings: dict[str, str]) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.router", cwd=ROOT, env=settings, stderr=PIPE
    )


@asynccontextmanager
async def process_settings(quota: FakeQuota, folder: Path) -> AsyncIterator[dict[str, str]]:
    billing = grpc.aio.server()
    billing_grpc.add_AccountServiceServicer_to_server(FakeBilling(), billing)
    port = billing.add_insecure_port("127.0.0.1:0")
    await billing.start()
    yield {
        **{name: value for name, value in os.environ.items() if not name.startswith("FLOWSTACK_")},
        "FLOWSTACK_DATA_DIR": str(folder),
        "FLOWSTACK_ROUTER_ADDRESS": "127.0.0.1:0",
        "FLOWSTACK_QUOTA_ADDRESS": quota.address,
        "FLOWSTACK_BILLING_INTERNAL_ADDRESS": f"127.0.0.1:{port}",
        "FLOWSTACK_ADMIN_PORT_BASE": "0",
        "FLOWSTACK_DRAIN_GRACE_SECONDS": "0.2",
    }
    await billing.stop(0)


@asynccontextmanager
async def router(settings: dict[str, str]) -> AsyncIterator[tuple[Process, Any]]:
    process = await start(settings)
    assert process.stderr is not None
    port = 0
    while not port:
        line = await process.stderr.readline()
        assert line, "the router ended"
        said = json.loads(line) if line.startswith(b"{") else {}
        port = said.get("port", 0) if said.get("event") == "listening" else 0
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield process, pb_grpc.RouterServiceStub(channel)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def talking(stub: Any) -> Any:
    """A stream that would go on for a minute, after its first words."""
    call = stub.Complete(echo_request("a b", **{"echo.words": "1000", "echo.delay_ms": "60"}), metadata=METADATA)
    while not (await call.read()).text_delta:
        pass
    return call
