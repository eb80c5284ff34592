"""The demonstration: opens an account, streams one session through the router, and shows what it cost."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from typing import TextIO

import grpc
from flowstack_protos.billing.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)
from flowstack_protos.router.v1 import router_service_pb2, router_service_pb2_grpc
from flowstack_protos.type.v1 import type_pb2

from services.shared.auth import AUTHORIZATION
from services.shared.settings import CommonSettings
from services.shared.tls import customer_credentials

PLAN_ID = "starter"
SENTENCE = "One call is one session, whatever its tokens or tools: reserved before it runs, counted once it is done."
CALL_SECONDS = 20.0

Metadata = tuple[tuple[str, str], ...]


class DemoFailedError(Exception):
    """The demonstration did not work. The message says what happened."""


class Demo:
    """One run against services that are up."""

    def __init__(self, settings: CommonSettings, out: TextIO = sys.stdout) -> None:
        self._settings = settings
        self._out = out

    async def run(self) -> None:
        """Runs it all and prints as it goes.

        Raises:
            DemoFailedError: a call failed, or the session was not counted exactly once.
        """
        settings = self._settings
        async with (
            _channel(settings, settings.billing_address) as billing,
            _channel(settings, settings.router_address) as router,
        ):
            try:
                secret = await self._open_account(billing)
                key: Metadata = ((AUTHORIZATION, f"Bearer {secret}"),)
                before = await self._usage(billing, key)
                await self._stream(router, key)
                after = await self._usage(billing, key)
            except grpc.aio.AioRpcError as error:
                raise DemoFailedError(f"{error.code().name}: {error.details()}") from None
        self._print_usage("Usage before", before)
        self._print_usage("Usage after ", after)
        if after.sessions_used != before.sessions_used + 1:
            raise DemoFailedError("The session was not counted exactly once.")
        self._print_next_steps(secret)

    async def _open_account(self, billing: grpc.aio.Channel) -> str:
        admin: Metadata = ((AUTHORIZATION, f"Bearer {self._settings.admin_tokens()[0].reveal()}"),)
        stub = account_service_pb2_grpc.AccountServiceStub(billing)
        created = await stub.CreateAccount(
            account_service_pb2.CreateAccountRequest(display_name="Demo", email="demo@example.com", plan_id=PLAN_ID),
            metadata=admin,
            timeout=CALL_SECONDS,
        )
        account_id = created.account.account_id
        key = await stub.CreateApiKey(
            account_service_pb2.CreateApiKeyRequest(account_id=account_id, display_name="demo"),
            metadata=admin,
            timeout=CALL_SECONDS,
        )
        self._print(f"Account      {account_id} on the plan {created.account.plan_id}")
        return key.secret

    async def _usage(self, billing: grpc.aio.Channel, key: Metadata) -> usage_service_pb2.Usage:
        stub = usage_service_pb2_grpc.UsageServiceStub(billing)
        response = await stub.GetUsage(usage_service_pb2.GetUsageRequest(), metadata=key, timeout=CALL_SECONDS)
        return response.usage

    async def _stream(self, router: grpc.aio.Channel, key: Metadata) -> None:
        stub = router_service_pb2_grpc.RouterServiceStub(router)
        request = router_service_pb2.CompleteRequest(
            provider="echo",
            model="echo-1",
            messages=[
                router_service_pb2.Message(
                    role=router_service_pb2.MESSAGE_ROLE_USER,
                    content=[router_service_pb2.ContentPart(text=SENTENCE)],
                )
            ],
            labels={"echo.delay_ms": "40"},
        )
        finished = False
        async for event in stub.Complete(request, metadata=key, timeout=CALL_SECONDS):
            kind = event.WhichOneof("event")
            if kind == "session_started":
                self._print(f"Session      {event.session_started.session_id} is reserved")
                self._print("Completion   ", end="")
            elif kind == "text_delta":
                self._print(event.text_delta, end="")
            elif kind == "session_finished":
                finished = True
                state = type_pb2.SessionState.Name(event.session_finished.session_state)
                self._print(f"\nSession      ended as {state.removeprefix('SESSION_STATE_')}")
        if not finished:
            raise DemoFailedError("The stream ended without its last message.")

    def _print_usage(self, title: str, usage: usage_service_pb2.Usage) -> None:
        self._print(
            f"{title} {usage.sessions_used} of {usage.sessions_limit} sessions used, "
            f"{usage.sessions_remaining} remaining ({usage.usage_percentage:.1f} %)"
        )

    def _print_next_steps(self, secret: str) -> None:
        settings = self._settings
        security = f"-cacert {shlex.quote(str(settings.server_authority_file))}" if settings.tls else "-plaintext"
        body = json.dumps(
            {
                "provider": "echo",
                "model": "echo-1",
                "messages": [{"role": "MESSAGE_ROLE_USER", "content": [{"text": "Hello, FlowStack"}]}],
            }
        )
        self._print(
            f"""
API key      {secret}
Router       {settings.router_address}   flowstack.router.v1.RouterService
Quota        {settings.quota_address}   flowstack.quota.v1.QuotaService, token in {settings.data_dir}/internal-token
Billing      {settings.billing_address}   flowstack.billing.v1.*, admin token in {settings.data_dir}/admin-token
Vault        {settings.vault_address}   flowstack.vault.v1.VaultService

Try it by hand:

grpcurl {security} -H 'authorization: Bearer {secret}' \\
  -d '{body}' \\
  {settings.router_address} flowstack.router.v1.RouterService/Complete

grpcurl {security} -H 'authorization: Bearer {secret}' {settings.billing_address} \\
  flowstack.billing.v1.UsageService/GetUsage
"""
        )

    def _print(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=self._out, flush=True)


def _channel(settings: CommonSettings, address: str) -> grpc.aio.Channel:
    credentials = customer_credentials(settings)
    if credentials is None:
        return grpc.aio.insecure_channel(address)
    return grpc.aio.secure_channel(address, credentials)


async def run_demo(settings: CommonSettings) -> None:
    """Runs the demonstration on standard output.

    Raises:
        DemoFailedError: it did not work.
    """
    await asyncio.wait_for(Demo(settings).run(), timeout=60)
