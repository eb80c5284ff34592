"""`flowstack doctor`: what it looks at, and how it ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_asyncio
from flowstack_protos.billing.v1 import usage_service_pb2 as usage
from flowstack_protos.vault.v1 import vault_service_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.timestamp_pb2 import Timestamp

from tests.e2e.terminal import Terminal, addresses, customer_of, operator_of
from tests.support.suite import Suite
from tests.support.told import telling

VAULT = "flowstack.vault.v1.VaultService"
UNKNOWN_KEY = "fs_" + "a" * 75


@pytest_asyncio.fixture(loop_scope="session")
async def me(suite: Suite) -> Terminal:
    return (await customer_of(suite, "starter"))[1]


async def test_all_is_well_and_nothing_is_left_behind(me: Terminal) -> None:
    well = await me.run("doctor", "--json")
    assert well.code == 0, well.out
    checks = {check["name"].split(" at ")[0]: check for check in well.json["checks"]}
    assert list(checks) == [
        "client",
        "settings",
        "router",
        "router's contract",
        "billing",
        "billing's contract",
        "vault",
        "vault's contract",
        "clock",
    ]
    assert all(check["ok"] for check in checks.values())
    for service in ("router", "billing", "vault"):
        assert checks[f"{service}'s contract"]["found"] == "the same as this client's"
    assert (await me.run("vault", "collections")).out == "The vault is empty.\n"


async def test_the_operator_asks_for_an_account(suite: Suite) -> None:
    account_id, _ = await customer_of(suite, "free")
    ended = await operator_of(suite).run("--account", account_id, "doctor")
    assert ended.code == 0, ended.out
    assert account_id in ended.out


@pytest.mark.parametrize(
    ("variables", "code", "text"),
    [
        ({"FLOWSTACK_API_KEY": ""}, 2, "admin accounts create"),
        ({"FLOWSTACK_API_KEY": "fs_?"}, 2, "malformed"),
        ({"FLOWSTACK_API_KEY": UNKNOWN_KEY}, 3, "not known"),
        ({"FLOWSTACK_VAULT_ENDPOINT": "127.0.0.1:1"}, 7, "127.0.0.1:1"),
        ({"FLOWSTACK_BILLING_ENDPOINT": "127.0.0.1:1"}, 7, "FLOWSTACK_BILLING_ENDPOINT"),
    ],
)
async def test_the_exit_code_is_that_of_the_first_failure(
    me: Terminal, variables: dict[str, str], code: int, text: str
) -> None:
    ended = await Terminal(me.variables | variables).run("doctor")
    assert ended.code == code, ended.out
    assert text in ended.out


def without_query(file: FileDescriptorProto) -> None:
    methods = file.service[0].method
    del methods[[method.name for method in methods].index("Query")]


def without_a_field(file: FileDescriptorProto) -> None:
    (message,) = [message for message in file.message_type if message.name == "StoreRequest"]
    del message.field[[field.name for field in message.field].index("ttl")]


def with_a_field(file: FileDescriptorProto) -> None:
    (message,) = [message for message in file.message_type if message.name == "StoreRequest"]
    message.field.add(
        name="color",
        number=99,
        type=FieldDescriptorProto.TYPE_STRING,
        label=FieldDescriptorProto.LABEL_OPTIONAL,
    )


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (without_query, 6, "older than this client and lacks QueryRequest.account_id = 1"),
        (without_a_field, 6, "older than this client and lacks StoreRequest.ttl = 5"),
        (with_a_field, 0, "newer and also has StoreRequest.color = 99"),
    ],
)
async def test_another_contract_is_told(
    me: Terminal, change: Callable[[FileDescriptorProto], None], code: int, text: str
) -> None:
    pool = DescriptorPool()
    _add(pool, vault_service_pb2.DESCRIPTOR, change)
    answers = {f"/{VAULT}/ListCollections": [vault_service_pb2.ListCollectionsResponse()]}
    with telling(answers, pool, [VAULT]) as address:
        ended = await Terminal(me.variables | {"FLOWSTACK_VAULT_ENDPOINT": address}).run("doctor")
    assert ended.code == code, ended.out
    assert text in ended.out


async def test_without_reflection_no_contract_is_compared(me: Terminal) -> None:
    answers = {f"/{VAULT}/ListCollections": [vault_service_pb2.ListCollectionsResponse()]}
    with telling(answers) as address:
        ended = await Terminal(me.variables | {"FLOWSTACK_VAULT_ENDPOINT": address}).run("doctor")
    assert ended.code == 0, ended.out
    assert "not compared: the service does not tell it" in ended.out


@pytest.mark.parametrize(("time_s", "text"), [(4_000_000_000, "behind the services'"), (1_000_000_000, "is ahead")])
async def test_a_clock_that_differs_is_told(suite: Suite, me: Terminal, time_s: int, text: str) -> None:
    answer = usage.GetUsageResponse(usage=usage.Usage(costs_as_of_time=Timestamp(seconds=time_s)))
    with telling({"/flowstack.billing.v1.UsageService/GetUsage": [answer]}) as address:
        ended = await Terminal(me.variables | {"FLOWSTACK_BILLING_ENDPOINT": address}).run("doctor")
    assert addresses(suite)["FLOWSTACK_BILLING_ENDPOINT"] not in ended.out
    assert ended.code == 6, ended.out
    assert text in ended.out


def _add(pool: DescriptorPool, file: FileDescriptor, change: Callable[[FileDescriptorProto], None] | None) -> None:
    """Adds a file and all that it needs, itself changed."""
    for needed in file.dependencies:
        _add(pool, needed, None)
    copy = FileDescriptorProto()
    file.CopyToProto(copy)
    if change is not None:
        change(copy)
    pool.Add(copy)  # type: ignore[no-untyped-call]  # the stubs leave it out
