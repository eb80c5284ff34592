"""Rows to domain tuples and back."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from services.quota.domain.model import (
    Block,
    BlockReason,
    Candidate,
    Entitlement,
    Outcome,
    Session,
    SessionState,
    Term,
)

SESSION_COLUMNS: Final = (
    "session_id, account_id, state, candidates, period_start_us, reserve_us, expire_us, resolve_us, "
    "served_mode, outcome, release_reason, request_id, api_key_id, labels, entitlement_revision"
)
SESSION_MARKS: Final = ", ".join("?" * 15)

INSERT_SESSION: Final = f"INSERT INTO sessions ({SESSION_COLUMNS}) VALUES ({SESSION_MARKS})"  # noqa: S608  # constants
INSERT_RESERVED: Final = (
    f"INSERT INTO sessions ({SESSION_COLUMNS}) "  # noqa: S608  # constants
    f"VALUES (?, ?, {SessionState.RESERVED.value}, ?, ?, ?, ?, 0, NULL, NULL, 0, ?, ?, ?, ?)"
)

Row = tuple[Any, ...]

_NO_OUTCOME: Final = (None, None)

_encode = msgspec.json.Encoder().encode
_decode_candidates = msgspec.json.Decoder(tuple[tuple[str, str, int], ...]).decode
_decode_labels = msgspec.json.Decoder(tuple[tuple[str, str], ...]).decode
_decode_terms = msgspec.json.Decoder(tuple[tuple[int, str, int, tuple[str, ...], int, int, int, str], ...]).decode
_decode_block = msgspec.json.Decoder(tuple[int, str, int]).decode


@lru_cache(maxsize=1024)
def _candidates_text(candidates: tuple[Candidate, ...]) -> str:
    # Few combinations are asked for over and over.
    return _encode(candidates).decode()


def _labels_text(labels: tuple[tuple[str, str], ...]) -> str:
    return _encode(labels).decode() if labels else "[]"


def row_from_session(session: Session) -> Row:
    """The row of `sessions`."""
    id_, account_id, state, candidates, period, reserve, expire, resolve, *_ = session
    return (
        id_,
        account_id,
        int(state),
        _candidates_text(candidates),
        period,
        reserve,
        expire,
        resolve,
        *(session.outcome or _NO_OUTCOME),
        session.release_reason,
        session.request_id,
        session.api_key_id,
        _labels_text(session.labels),
        session.entitlement_revision,
    )


def row_from_reserved(session: Session) -> Row:
    """The parameters of INSERT_RESERVED, which has the rest of the row in its text: each value to bind counts."""
    id_, account_id, _, candidates, period, reserve, expire, _, _, _, request_id, api_key_id, labels, revision = session
    return (
        id_,
        account_id,
        _candidates_text(candidates),
        period,
        reserve,
        expire,
        request_id,
        api_key_id,
        _labels_text(labels),
        revision,
    )


def session_from_row(row: Row) -> Session:
    """The session of a row with SESSION_COLUMNS."""
    return Session(
        row[0],
        row[1],
        SessionState(row[2]),
        tuple(Candidate._make(c) for c in _decode_candidates(row[3])),
        row[4],
        row[5],
        row[6],
        row[7],
        None if row[9] is None else Outcome(row[8], row[9]),
        row[10],
        row[11],
        row[12],
        _decode_labels(row[13]),
        row[14],
    )


def row_from_entitlement(entitlement: Entitlement) -> Row:
    """The row of `entitlements`."""
    return (
        entitlement.account_id,
        entitlement.revision,
        entitlement.subscription_id,
        entitlement.period_anchor_us,
        _encode(entitlement.terms).decode(),
        entitlement.end_us,
        None if entitlement.block is None else _encode(entitlement.block).decode(),
    )


def entitlement_from_row(row: Row) -> Entitlement:
    """The entitlement of a row."""
    block = None if row[6] is None else _decode_block(row[6])
    return Entitlement(
        row[0],
        row[1],
        row[2],
        row[3],
        tuple(Term._make(term) for term in _decode_terms(row[4])),
        row[5],
        None if block is None else Block(BlockReason(block[0]), block[1], block[2]),
    )
