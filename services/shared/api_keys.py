"""Whose API key it is, asked of billing and remembered for a while."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import grpc
from flowstack_protos.billing.v1 import account_service_pb2 as billing_pb
from flowstack_protos.billing.v1 import account_service_pb2_grpc as billing_grpc

from services.shared.auth import Caller, CallerKind
from services.shared.channel import ServiceChannel
from services.shared.clock import Clock
from services.shared.errors import FlowStackError, Reason
from services.shared.secret import Secret
from services.shared.status import error_from_rpc

FRESH_SECONDS: Final = 10.0
"""How long an answer holds while billing can be reached: a revoked key works no longer than this."""
STALE_SECONDS: Final = 300.0
"""How long it holds while billing cannot be reached."""
REFUSED_SECONDS: Final = 2.0
"""How long a refusal holds: short, because the key may be being made."""
ENTRIES_MAX: Final = 100_000
"""Good keys, and refused ones, each."""
CALL_SECONDS: Final = 2.0
PAUSE_SECONDS: Final = 2.0
"""Between two questions to a billing that did not answer the last one."""

_REFUSALS: Final = frozenset({Reason.API_KEY_INVALID, Reason.API_KEY_REVOKED, Reason.API_KEY_EXPIRED})
_NO_ANSWER: Final = frozenset({Reason.BILLING_UNAVAILABLE, Reason.CALL_TIME_LIMIT, Reason.SHUTTING_DOWN})
"""What billing says when it could not look. Any other answer, though it may be of no use for its key, tells that it
can: or one key that it cannot deal with would keep every other one from being asked for."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose key it is. `expires_us` is wall time in microseconds; None when the key does not expire."""

    caller: Caller
    expires_us: int | None


AskBilling = Callable[[Secret], Awaitable[Identity]]


@dataclass(frozen=True, slots=True)
class _Known:
    """An answer, and when it was given."""

    answer: Identity | FlowStackError
    asked_s: float


class BillingClient:
    """The internal port of billing."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._stub = billing_grpc.AccountServiceStub(channel.channel)
        self._metadata = channel.metadata

    async def ask(self, api_key: Secret) -> Identity:
        """Whose key it is.

        Raises:
            FlowStackError: API_KEY_INVALID, API_KEY_REVOKED, API_KEY_EXPIRED; BILLING_UNAVAILABLE where no answer
                comes; what else billing answers.
        """
        request = billing_pb.AuthenticateApiKeyRequest(api_key=api_key.reveal())
        try:
            response = await self._stub.AuthenticateApiKey(request, metadata=self._metadata, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            answer = error_from_rpc(error)
            raise _unavailable() if answer is None or answer.reason in _NO_ANSWER else answer from None
        expires_us = response.expire_time.ToMicroseconds() if response.HasField("expire_time") else None
        caller = Caller(CallerKind.CUSTOMER, account_id=response.account_id, api_key_id=response.api_key_id)
        return Identity(caller, expires_us)


class ApiKeys:
    """Answers whose key it is, from memory where that is fresh enough.

    Keys are remembered by a digest of the whole key, made with a secret of this process: what is in memory is of
    no use to anybody who reads it, and no two keys share an entry. Callers who ask for one key at the same time
    share one question to billing.

    An answer that is no longer fresh is waited for while billing answers, so that a revoked key works no longer than
    FRESH_SECONDS. Once a question was left open billing is down: what is known goes on to hold, without any wait, and
    one task asks until there is an answer again, whoever calls meanwhile. It asks for the key that met the outage,
    which is the only key that is kept, and for as long as that.
    """

    def __init__(
        self, ask: AskBilling, clock: Clock, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._sleep = sleep
        self._down = False
        self._recovery: asyncio.Task[None] | None = None
        self._salt = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        # Apart from the good ones, so that a flood of wrong keys never pushes out those that an outage lives on.
        self._refused: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Known]] = {}

    async def authenticate(self, api_key: Secret) -> Caller:
        """The caller that `api_key` stands for.

        Raises:
            FlowStackError: API_KEY_INVALID, API_KEY_REVOKED, API_KEY_EXPIRED; BILLING_UNAVAILABLE where billing cannot
                be reached and the key was not seen lately.
        """
        digest = hashlib.blake2b(api_key.reveal().encode(), key=self._salt, digest_size=32).digest()
        known = self._known.get(digest) or self._refused.get(digest)
        if known is None or not self._holds(known, self._clock.monotonic_s()):
            known = await self._look_up(digest, api_key)
        answer = known.answer
        if isinstance(answer, FlowStackError):
            # A new one each time: an exception that is raised twice grows its traceback without end.
            raise FlowStackError(answer.reason, answer.message, metadata=answer.metadata)
        if answer.expires_us is not None and answer.expires_us <= self._clock.now_us():
            raise FlowStackError(Reason.API_KEY_EXPIRED, "The API key has expired. Create another one.")
        return answer.caller

    def _holds(self, known: _Known, now_s: float) -> bool:
        if isinstance(known.answer, FlowStackError):
            return now_s - known.asked_s < REFUSED_SECONDS
        return now_s - known.asked_s < (STALE_SECONDS if self._down else FRESH_SECONDS)

    async def _look_up(self, digest: bytes, api_key: Secret) -> _Known:
        task = self._asking.get(digest)
        if task is None:
            task = asyncio.create_task(self._refresh(digest, api_key))
            self._asking[digest] = task
            task.add_done_callback(lambda _: self._asking.pop(digest, None))
        # Shielded: one caller that goes away does not take the answer from the others.
        return await asyncio.shield(task)

    async def _refresh(self, digest: bytes, api_key: Secret) -> _Known:
        asked_s = self._clock.monotonic_s()
        try:
            known, store = _Known(await self._ask(api_key), asked_s), self._known
        except FlowStackError as error:
            if error.reason not in _REFUSALS:
                if error.reason is Reason.BILLING_UNAVAILABLE:
                    self._went_down(digest, api_key)
                else:
                    self._down = False
                return self._fall_back(digest, asked_s)
            known, store = _Known(error, asked_s), self._refused
        self._down = False
        self._known.pop(digest, None)
        self._refused.pop(digest, None)
        store[digest] = known
        while len(store) > ENTRIES_MAX:
            store.popitem(last=False)
        return known

    def _went_down(self, digest: bytes, api_key: Secret) -> None:
        self._down = True
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.create_task(self._recover(digest, api_key))

    async def _recover(self, digest: bytes, api_key: Secret) -> None:
        """Asks until billing has answered anybody."""
        while self._down:
            await self._sleep(PAUSE_SECONDS)
            if self._down:
                await self._look_up(digest, api_key)

    async def close(self) -> None:
        """Asks no more."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait((self._recovery,))

    def _fall_back(self, digest: bytes, now_s: float) -> _Known:
        """The last good answer where billing gives none; its age is not renewed."""
        known = self._known.get(digest)
        if known is not None and now_s - known.asked_s < STALE_SECONDS:
            return known
        return _Known(_unavailable(), now_s)


def _unavailable() -> FlowStackError:
    return FlowStackError(
        Reason.BILLING_UNAVAILABLE, "The API key cannot be checked, because billing does not answer. Try again."
    )
