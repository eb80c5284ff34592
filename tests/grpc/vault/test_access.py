"""Who may call, for whose account; and that two accounts never meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flowstack_protos.vault.v1 import vault_service_pb2 as pb

from tests.support.billing import ADMIN, INTERNAL, bearer, failure_of, reason_of
from tests.support.clock import ManualClock
from tests.support.vault import ALICE, BOB, VaultClient, VaultUnderTest, fake_billing, key_of, settings_for, vault

CALLS: dict[str, Any] = {
    "Store": lambda **fields: pb.StoreRequest(collection="c", document_json="{}", key="k", **fields),
    "Retrieve": lambda **fields: pb.RetrieveRequest(collection="c", key="k", **fields),
    "Query": lambda **fields: pb.QueryRequest(collection="c", **fields),
    "Delete": lambda **fields: pb.DeleteRequest(collection="c", key="k", **fields),
    "ListCollections": pb.ListCollectionsRequest,
}


def test_every_method_is_tried() -> None:
    assert set(CALLS) == {method.name for method in pb.DESCRIPTOR.services_by_name["VaultService"].methods}


@pytest.mark.parametrize("method", CALLS)
async def test_only_keys_and_the_admin_token_are_let_in(service: VaultUnderTest, method: str) -> None:
    service.billing.revoked.add("acct_revoked")
    call, request = getattr(service.stub, method), CALLS[method]
    assert await reason_of(call(request(), timeout=30)) == "API_KEY_MISSING"
    for token in ("fs_unknown", "wrong-token", INTERNAL[0][1].removeprefix("Bearer ")):
        assert await reason_of(call(request(), metadata=bearer(token), timeout=30)) == "API_KEY_INVALID"
    revoked = bearer(key_of("acct_revoked"))
    assert await reason_of(call(request(), metadata=revoked, timeout=30)) == "API_KEY_REVOKED"
    code, error = await failure_of(call(request(account_id=BOB), metadata=bearer(key_of(ALICE)), timeout=30))
    assert (code.name, error.reason.value) == ("PERMISSION_DENIED", "ACCOUNT_MISMATCH")
    code, error = await failure_of(call(request(), metadata=ADMIN, timeout=30))
    assert (code.name, [one.field for one in error.violations]) == ("INVALID_ARGUMENT", ["account_id"])


async def test_a_customer_may_name_its_own_account_and_the_operator_any(
    service: VaultUnderTest, alice: VaultClient
) -> None:
    await alice.call("Store", CALLS["Store"](account_id=ALICE))
    assert (await service.admin(ALICE).retrieve("c", "k")).document.version == 1
    await service.admin(ALICE).store("c", '{"by":"operator"}', key="k")
    assert (await alice.retrieve("c", "k")).document.document_json == '{"by":"operator"}'


async def test_two_accounts_share_names_and_nothing_else(alice: VaultClient, bob: VaultClient) -> None:
    await alice.store("c", '{"mine":1}', key="k")
    await alice.store("only", "{}", key="k")
    assert await reason_of(bob.retrieve("c", "k")) == "DOCUMENT_NOT_FOUND"
    assert (await bob.delete("c", all_documents=True)).deleted_count == 0
    assert (await bob.delete("c", key="k")).deleted_count == 0
    assert (await bob.delete("c", filter_json='{"mine":{"$exists":true}}')).deleted_count == 0
    assert (await bob.store("c", '{"mine":2}', key="k", if_version=0)).version == 1
    for text in ("", '{"$or":[{"mine":1},{"mine":2}]}', '{"$not":{"mine":7}}', '{"account_id":{"$ne":"x"}}'):
        found = (await bob.query("c", text, ["-mine", "_create_time"])).documents
        assert [one.document_json for one in found] == ['{"mine":2}']
    listed = await bob.list_collections()
    assert [(one.collection, one.document_count) for one in listed.collections] == [("c", 1)]
    assert listed.used_bytes == len('k{"mine":2}')
    assert (await alice.retrieve("c", "k")).document.document_json == '{"mine":1}'


async def test_keys_that_are_known_go_on_working_while_billing_is_down(tmp_path: Path, clock: ManualClock) -> None:
    async with fake_billing() as (billing, address):
        settings = settings_for(tmp_path, address)
        async with vault(settings, clock, billing) as service:
            await service.customer(ALICE).store("c", "{}", key="k")
            known, unknown = service.customer(ALICE), service.customer(BOB)
            billing.is_down = True
            clock.advance(11)
            assert (await known.retrieve("c", "k")).document.version == 1
            code, error = await failure_of(unknown.query("c"))
            assert (code.name, error.reason.value) == ("UNAVAILABLE", "BILLING_UNAVAILABLE")


async def test_capacity_is_per_account(tmp_path: Path, vault_address: str, clock: ManualClock) -> None:
    async with fake_billing() as (billing, address):
        settings = settings_for(tmp_path, address, vault_database=vault_address, vault_capacity_bytes=100)
        async with vault(settings, clock, billing) as service:
            alice, bob = service.customer(ALICE), service.customer(BOB)
            await alice.store("c", '{"t":"' + "x" * 51 + '"}', key="a")
            code, error = await failure_of(alice.store("d", '{"t":"' + "x" * 51 + '"}', key="b"))
            assert (code.name, error.reason.value) == ("RESOURCE_EXHAUSTED", "VAULT_CAPACITY_EXCEEDED")
            assert error.metadata == {"used_bytes": "60", "capacity_bytes": "100"}
            await bob.store("d", '{"t":"' + "x" * 51 + '"}', key="b")
            await alice.store("c", '{"t":"' + "x" * 90 + '"}', key="a")
            assert await reason_of(alice.store("c", '{"t":"' + "x" * 92 + '"}', key="a")) == "VAULT_CAPACITY_EXCEEDED"
            listed = await alice.list_collections()
            assert (listed.used_bytes, listed.capacity_bytes) == (99, 100)
            await alice.delete("c", key="a")
            await alice.store("c", "{}", key="a", ttl=pb.StoreRequest(ttl={"seconds": 1}).ttl)
            await alice.store("c", '{"t":"' + "x" * 80 + '"}', key="b")
            assert await reason_of(alice.store("c", '{"t":"x"}', key="c")) == "VAULT_CAPACITY_EXCEEDED"
            clock.advance(1)
            await alice.store("c", "{}", key="c")
            assert (await alice.list_collections()).used_bytes == 89 + 3, "what has expired takes no room"
