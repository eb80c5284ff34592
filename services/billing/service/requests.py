"""Calls with a request_id: a repeat gets the first answer, for good."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

import msgspec

from services.billing.store import Transaction

AnswerT = TypeVar("AnswerT")


class Request(NamedTuple):
    """A call, as far as it decides whether another one is its repeat."""

    method: str
    scope: str
    """The account, within which a request_id is unique; empty where there is none yet."""
    request_id: str
    """Empty for none."""
    content: tuple[object, ...]
    """Everything that is asked for, as plain values."""


async def answer_once(
    transaction: Transaction,
    request: Request,
    now_us: int,
    answer_type: type[AnswerT],
    work: Callable[[], Awaitable[AnswerT]],
) -> AnswerT:
    """Does `work`, or answers what it was answered with before.

    Raises:
        FlowStackError: DUPLICATE_REQUEST: the request_id came before with other content.
    """
    method, scope, request_id, content = request
    if not request_id:
        return await work()
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    earlier = await transaction.requests.begin(method, scope, request_id, digest, now_us)
    if earlier is not None:
        return msgspec.json.decode(earlier, type=answer_type)
    answer = await work()
    await transaction.requests.finish(method, scope, request_id, msgspec.json.encode(answer).decode())
    return answer
