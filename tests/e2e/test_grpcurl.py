"""What a person with grpcurl does: lists, describes and calls each service, and pastes the README."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess

import pytest

from tests.support.suite import ROOT, Suite

# The first test may have to wait until grpcurl is built.
pytestmark = pytest.mark.timeout(600)

SERVICES = {
    "router_address": {"flowstack.router.v1.RouterService"},
    "quota_address": {"flowstack.quota.v1.QuotaService"},
    "billing_address": {
        f"flowstack.billing.v1.{name}Service"
        for name in ("Account", "Subscription", "Usage", "Invoice", "Alert", "Audit")
    },
    "vault_address": {"flowstack.vault.v1.VaultService"},
}
COMMON = {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}


async def run(*command: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("setting", SERVICES)
async def test_it_lists_and_describes_each_service(suite: Suite, grpcurl: str, setting: str) -> None:
    address = getattr(suite.settings, setting)
    listed = await run(grpcurl, "-plaintext", address, "list")
    assert set(listed.stdout.split()) == SERVICES[setting] | COMMON, listed.stderr
    for name in SERVICES[setting]:
        described = await run(grpcurl, "-plaintext", address, "describe", name)
        assert "rpc " in described.stdout, described.stderr


async def test_it_calls_each_service(suite: Suite, grpcurl: str) -> None:
    account_id, secret = await suite.open_account("hobbyist")
    settings = suite.settings

    async def call(address: str, token: str, method: str, body: object) -> str:
        result = await run(
            grpcurl, "-plaintext", "-H", f"authorization: Bearer {token}", "-d", json.dumps(body), address, method
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    message = {"role": "MESSAGE_ROLE_USER", "content": [{"text": "Hello by hand"}]}
    completion = {"provider": "echo", "model": "echo-1", "messages": [message]}
    streamed = await call(settings.router_address, secret, "flowstack.router.v1.RouterService/Complete", completion)
    assert "SESSION_STATE_COMMITTED" in streamed

    usage = await call(settings.billing_address, secret, "flowstack.billing.v1.UsageService/GetUsage", {})
    assert json.loads(usage)["usage"]["sessions_used"] == 1

    internal = settings.internal_tokens()[0].reveal()
    quota = await call(
        settings.quota_address, internal, "flowstack.quota.v1.QuotaService/GetQuota", {"account_id": account_id}
    )
    assert json.loads(quota)["quota"]["sessions_remaining"] == 199

    for address in (settings.router_address, settings.quota_address, settings.billing_address, settings.vault_address):
        health = await call(address, "none", "grpc.health.v1.Health/Check", {})
        assert json.loads(health) == {"status": "SERVING"}


async def test_a_document_goes_through_the_vault(suite: Suite, grpcurl: str) -> None:
    _, secret = await suite.open_account("free")

    async def call(method: str, body: object) -> subprocess.CompletedProcess[str]:
        return await run(
            grpcurl, "-plaintext", "-H", f"authorization: Bearer {secret}", "-d", json.dumps(body),
            suite.settings.vault_address, f"flowstack.vault.v1.VaultService/{method}",
        )  # fmt: skip

    stored = await call("Store", {"collection": "c", "key": "k", "document_json": '{"n": 9007199254740993}'})
    assert json.loads(stored.stdout) == {"key": "k", "version": 1}, stored.stderr
    wanted = {"collection": "c", "filter_json": '{"n": {"$gt": 9007199254740992}}', "sort": [{"field": "n"}]}
    (document,) = json.loads((await call("Query", wanted)).stdout)["documents"]
    assert (document["key"], document["document_json"]) == ("k", '{"n": 9007199254740993}')
    listed = json.loads((await call("ListCollections", {})).stdout)
    assert [one["document_count"] for one in listed["collections"]] == [1]
    assert "DOCUMENT_NOT_FOUND" in (await call("Retrieve", {"collection": "c", "key": "other"})).stderr
    assert json.loads((await call("Delete", {"collection": "c", "key": "k"})).stdout) == {"deleted_count": 1}
    assert (await suite.usage(secret)).sessions_used == 0, "the vault costs no session"


async def test_channelz_stands_on_the_admin_port(suite: Suite, grpcurl: str) -> None:
    address = f"127.0.0.1:{suite.settings.admin_port_base}"
    result = await run(grpcurl, "-plaintext", address, "grpc.channelz.v1.Channelz/GetServers")
    assert json.loads(result.stdout)["server"], result.stderr


async def test_the_commands_of_the_readme_work_when_pasted(suite: Suite, grpcurl: str) -> None:
    text = (ROOT / "README.md").read_text()
    block = next(block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if block.startswith("ADMIN="))
    settings = suite.settings
    for default, address in (
        ("127.0.0.1:50051", settings.router_address),
        ("127.0.0.1:50053", settings.billing_address),
        ("var/admin-token", shlex.quote(str(suite.data / "admin-token"))),
        ("grpcurl ", f"{shlex.quote(grpcurl)} "),
    ):
        assert default in block
        block = block.replace(default, address)
    result = await run("bash", "-euo", "pipefail", "-c", block)
    assert result.returncode == 0, result.stderr
    assert "SESSION_STATE_COMMITTED" in result.stdout
    assert '"sessions_used": 1' in result.stdout
    assert "string provider = 2" in result.stdout


async def test_buf_curl_does_without_grpcurl(suite: Suite) -> None:
    address = f"http://{suite.settings.router_address}"
    buf = ROOT / ".venv" / "bin" / "buf"
    result = await run(str(buf), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--list-methods", address)
    assert "flowstack.router.v1.RouterService/Complete" in result.stdout, result.stderr
