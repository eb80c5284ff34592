"""The fake serves what users and operators may call: all of it, by the contracts' own lists."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import flowstack_protos.billing.v1
import flowstack_protos.router.v1
import flowstack_protos.vault.v1
import grpc
import pytest
from flowstack_protos.buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from flowstack.testing import FakeFlowStack
from flowstack.testing._cross_rules import CROSS_RULES
from tests.support.suite import CALL_SECONDS, bearer

PUBLIC = [flowstack_protos.router.v1, flowstack_protos.billing.v1, flowstack_protos.vault.v1]
BETWEEN_SERVICES = {"flowstack.billing.v1.AccountService.AuthenticateApiKey"}


def methods(package: ModuleType) -> Iterator[MethodDescriptor]:
    """Every method of a package of contracts."""
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if found.name.endswith("_pb2"):
            for service in importlib.import_module(found.name).DESCRIPTOR.services_by_name.values():
                yield from service.methods


METHODS = {method.full_name: method for package in PUBLIC for method in methods(package)}


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeFlowStack]:
    with FakeFlowStack() as running:
        yield running


@pytest.fixture(scope="module")
def channel(fake: FakeFlowStack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(fake.endpoint) as opened:
        yield opened


def answer_of(fake: FakeFlowStack, channel: grpc.Channel, method: MethodDescriptor) -> grpc.StatusCode:
    """What a call comes to whose request is empty, or about an account that cannot be."""
    request = GetMessageClass(method.input_type)()
    if "account_id" in method.input_type.fields_by_name:
        request.account_id = "no account"  # type: ignore[attr-defined]  # has the field
    is_router = method.containing_service.full_name.startswith("flowstack.router")
    metadata = bearer(fake.api_key if is_router else fake.admin_token)
    path = f"/{method.containing_service.full_name}/{method.name}"
    encode, decode = type(request).SerializeToString, GetMessageClass(method.output_type).FromString
    try:
        if method.client_streaming:
            call = channel.stream_stream(path, encode, decode)
            list(call(iter([request]), metadata=metadata, timeout=CALL_SECONDS))
        elif method.server_streaming:
            list(channel.unary_stream(path, encode, decode)(request, metadata=metadata, timeout=CALL_SECONDS))
        else:
            channel.unary_unary(path, encode, decode)(request, metadata=metadata, timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        return error.code()  # type: ignore[attr-defined]  # a call, as every error of a stub is
    return grpc.StatusCode.OK


@pytest.mark.parametrize("name", sorted(METHODS.keys() - BETWEEN_SERVICES))
def test_every_public_method_is_served(fake: FakeFlowStack, channel: grpc.Channel, name: str) -> None:
    assert answer_of(fake, channel, METHODS[name]) in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)


def test_what_services_call_is_refused(fake: FakeFlowStack, channel: grpc.Channel) -> None:
    for name in BETWEEN_SERVICES:
        assert answer_of(fake, channel, METHODS[name]) is grpc.StatusCode.UNAUTHENTICATED


def test_every_rule_across_fields_is_restated() -> None:
    found: set[str] = set()
    for method in METHODS.values():
        found |= rules_of(method.input_type, set())

    assert found == CROSS_RULES.keys()


def rules_of(message: Descriptor, seen: set[str]) -> set[str]:
    """The ids of the rules of a message and of those in it."""
    if message.full_name in seen:
        return set()
    seen.add(message.full_name)
    found = {rule.id for rule in message.GetOptions().Extensions[validate_pb2.message].cel}
    for field in message.fields:
        found |= {rule.id for rule in field.GetOptions().Extensions[validate_pb2.field].cel}
        if field.message_type is not None:
            found |= rules_of(field.message_type, seen)
    return found
