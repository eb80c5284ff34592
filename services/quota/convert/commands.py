"""Commands in. Each is valid by the contract's rules when it comes out of here."""

from __future__ import annotations

from flowstack_protos.quota.v1 import quota_service_pb2 as pb

from services.quota.convert.plain import outcome_from_proto, plain_commit, plain_reserve
from services.quota.domain.commands import LEASE_US_DEFAULT, Command, Commit, Release, Reserve
from services.quota.domain.model import Candidate
from services.shared.interceptor import validate


def command_from_proto(command: pb.SessionCommand) -> Command:
    """SessionCommand to domain.

    Raises:
        FlowStackError: INVALID_REQUEST, naming the fields as they stand in the command.
    """
    kind = command.WhichOneof("command")
    if kind == "reserve":
        plain: Command | None = plain_reserve(command.reserve)
    elif kind == "commit":
        plain = plain_commit(command.commit)
    else:
        plain = None
    if plain is not None:
        return plain
    validate(command)
    if kind == "reserve":
        return read_reserve(command.reserve)
    if kind == "commit":
        return read_commit(command.commit)
    return read_release(command.release)


def reserve_from_proto(request: pb.ReserveSessionRequest) -> Reserve:
    """ReserveSessionRequest to domain. Raises FlowStackError INVALID_REQUEST."""
    plain = plain_reserve(request)
    if plain is not None:
        return plain
    validate(request)
    return read_reserve(request)


def commit_from_proto(request: pb.CommitSessionRequest) -> Commit:
    """CommitSessionRequest to domain. Raises FlowStackError INVALID_REQUEST."""
    plain = plain_commit(request)
    if plain is not None:
        return plain
    validate(request)
    return read_commit(request)


def release_from_proto(request: pb.ReleaseSessionRequest) -> Release:
    """ReleaseSessionRequest to domain. Raises FlowStackError INVALID_REQUEST."""
    validate(request)
    return read_release(request)


def read_reserve(request: pb.ReserveSessionRequest) -> Reserve:
    """The command of a request that is known to be valid."""
    lease_us = LEASE_US_DEFAULT
    if request.HasField("lease_duration"):
        lease_us = request.lease_duration.seconds * 1_000_000 + request.lease_duration.nanos // 1000
    return Reserve(
        request.account_id,
        request.session_id,
        tuple(Candidate(c.provider, c.model, c.credential_mode) for c in request.candidates),
        lease_us,
        request.request_id,
        request.api_key_id,
        tuple(sorted(request.labels.items())) if request.labels else (),
    )


def read_commit(request: pb.CommitSessionRequest) -> Commit:
    """The command of a request that is known to be valid."""
    return Commit(request.account_id, request.session_id, outcome_from_proto(request.outcome))


def read_release(request: pb.ReleaseSessionRequest) -> Release:
    """The command of a request that is known to be valid."""
    outcome = outcome_from_proto(request.outcome) if request.HasField("outcome") else None
    return Release(request.account_id, request.session_id, request.reason, outcome)
