"""The quick look at commands never vouches for one that the contract's rules refuse."""

from __future__ import annotations

from typing import Any

from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st

from services.quota.convert.commands import read_commit, read_reserve
from services.quota.convert.plain import plain_commit, plain_reserve
from services.quota.domain.commands import Command
from services.shared.errors import FlowStackError
from services.shared.interceptor import validate

UUID7 = "ses_0199c0a4f0007abc8def0123456789ab"

account_ids = st.sampled_from(["acct_1", "acct_" + "x" * 58, "acct_" + "x" * 59, "acct_", "acct_é", "acct_1\n", ""])
session_ids = st.sampled_from(
    [
        UUID7,
        UUID7.upper(),
        UUID7[:-1],
        UUID7 + "\n",
        UUID7.replace("7abc", "4abc"),
        "ses_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "",
    ]
)
sizes = st.sampled_from([0, 1, 63, 64, 65, 127, 128, 129, 255, 256, 257])
texts = st.builds(lambda size, letter: letter * size, sizes, st.sampled_from(["a", "é", "\x00"]))
numbers = st.sampled_from([-1, 0, 1, 2**31 - 1])
enums = st.sampled_from([-1, 0, 1, 2, 3, 9, 10, 77])
leases = st.builds(
    lambda seconds, nanos: Duration(seconds=seconds, nanos=nanos),
    st.sampled_from([-1, 0, 1, 330, 3599, 3600, 3601]),
    st.sampled_from([-1, 0, 1, 999_999_999, 1_000_000_000]),
)


def fields(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any selection of these fields."""
    return st.fixed_dictionaries({}, optional=strategies)


candidates = st.builds(
    lambda given: type_pb2.Candidate(**given), fields(provider=texts, model=texts, credential_mode=enums)
)
attempts = st.builds(
    lambda given: type_pb2.Attempt(**given),
    fields(provider=texts, model=texts, failure=enums, input_tokens=numbers, output_tokens=numbers),
)
outcomes = st.builds(
    lambda given: type_pb2.SessionOutcome(**given),
    fields(
        finish_reason=enums,
        provider_finish_reason=texts,
        served_provider=texts,
        served_model=texts,
        served_credential_mode=enums,
        input_tokens=numbers,
        output_tokens=numbers,
        cached_input_tokens=numbers,
        cache_write_tokens=numbers,
        reasoning_tokens=numbers,
        attempts=st.lists(attempts, max_size=3),
        provider_request_id=texts,
        tool_call_count=numbers,
    ),
)
reserves = st.builds(
    lambda account_id, session_id, given: pb.SessionCommand(
        reserve=pb.ReserveSessionRequest(account_id=account_id, session_id=session_id, **given)
    ),
    account_ids,
    session_ids,
    fields(
        candidates=st.lists(candidates, max_size=17),
        lease_duration=leases,
        request_id=texts,
        api_key_id=texts,
        labels=st.dictionaries(texts, texts, max_size=17),
    ),
)
commits = st.builds(
    lambda account_id, session_id, given: pb.SessionCommand(
        commit=pb.CommitSessionRequest(account_id=account_id, session_id=session_id, **given)
    ),
    account_ids,
    session_ids,
    fields(outcome=outcomes),
)


def is_valid(command: pb.SessionCommand) -> bool:
    try:
        validate(command)
    except FlowStackError:
        return False
    return True


def plain(command: pb.SessionCommand) -> Command | None:
    if command.WhichOneof("command") == "reserve":
        return plain_reserve(command.reserve)
    return plain_commit(command.commit)


def is_plain(command: pb.SessionCommand) -> bool:
    return plain(command) is not None


@settings(max_examples=1_500, deadline=None)
@given(st.one_of(reserves, commits))
def test_whatever_is_plain_is_valid_and_read_like_any_other(command: pb.SessionCommand) -> None:
    taken = plain(command)
    if taken is not None:
        assert is_valid(command), command
        is_reserve = command.WhichOneof("command") == "reserve"
        assert taken == (read_reserve(command.reserve) if is_reserve else read_commit(command.commit))


def reserve(**given: Any) -> pb.SessionCommand:
    candidate = type_pb2.Candidate(provider="openai", model="gpt-4o", credential_mode=type_pb2.CREDENTIAL_MODE_BYOK)
    return pb.SessionCommand(
        reserve=pb.ReserveSessionRequest(
            **{"account_id": "acct_1", "session_id": UUID7, "candidates": [candidate], **given}
        )
    )


def test_what_routers_send_is_plain() -> None:
    attempt = type_pb2.Attempt(provider="openai", model="gpt-4o", input_tokens=5, output_tokens=6)
    outcome = type_pb2.SessionOutcome(
        finish_reason=type_pb2.FINISH_REASON_STOP,
        provider_finish_reason="stop",
        served_provider="openai",
        served_model="gpt-4o",
        served_credential_mode=type_pb2.CREDENTIAL_MODE_BYOK,
        input_tokens=5,
        output_tokens=6,
        attempts=[attempt],
        provider_request_id="req_1",
    )
    commit = pb.CommitSessionRequest(account_id="acct_1", session_id=UUID7, outcome=outcome)
    full = reserve(lease_duration=Duration(seconds=330), request_id="r", api_key_id="key_1", labels={"team": "search"})
    assert is_plain(reserve())
    assert is_plain(full)
    assert is_plain(pb.SessionCommand(commit=commit))


def test_each_broken_rule_is_seen() -> None:
    def candidate(**given: Any) -> type_pb2.Candidate:
        return type_pb2.Candidate(**{"provider": "p", "model": "m", "credential_mode": 2, **given})

    for broken in (
        reserve(account_id="acct_"),
        reserve(session_id="ses_1"),
        reserve(candidates=[]),
        reserve(candidates=[candidate()] * 17),
        reserve(candidates=[candidate(provider="")]),
        reserve(candidates=[candidate(model="x" * 257)]),
        reserve(candidates=[candidate(credential_mode=0)]),
        reserve(lease_duration=Duration(seconds=0)),
        reserve(lease_duration=Duration(seconds=3601)),
        reserve(request_id=""),
        reserve(api_key_id="x" * 65),
        reserve(labels={str(n): "" for n in range(17)}),
        pb.SessionCommand(commit=pb.CommitSessionRequest(account_id="acct_1", session_id=UUID7)),
        pb.SessionCommand(),
    ):
        assert not is_plain(broken)
        assert not is_valid(broken)
