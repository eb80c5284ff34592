"""One session of the fake's router, from its reservation to its last event.

The call's own thread runs it. That the client is gone is told from another thread: whoever comes first resolves the
session, under the world's lock, and the other finds it resolved.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2 as types

from flowstack.testing import _replies as replies
from flowstack.testing._alerts import fire_alerts
from flowstack.testing._endings import RATE_LIMIT_RETRY, Cause, Ending, Failed, Progress, decide, explanation
from flowstack.testing._errors import FakeError
from flowstack.testing._quota import Session
from flowstack.testing._records import Account
from flowstack.testing._settling import settle
from flowstack.testing._tools import Inbox, ToolLoop, ToolLoopError
from flowstack.testing._world import World


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in real seconds; the virtual clock does not move them."""

    session_s: float = 300.0
    tool_results_s: float = 60.0


class _Answer(NamedTuple):
    """What the model said in one round."""

    text: str
    calls: list[pb.ToolCall]
    reason: types.FinishReason.ValueType


class _BrokenError(Exception):
    """Ends a session that did not come to its natural end."""

    def __init__(self, cause: Cause, detail: str = "") -> None:
        super().__init__(cause.name)
        self.cause = cause
        self.detail = detail


class Conversation:
    """Runs one session."""

    def __init__(
        self,
        world: World,
        account: Account,
        session: Session,
        request: pb.CompleteRequest,
        *,
        limits: Limits,
        inbox: Inbox | None,
    ) -> None:
        self._world = world
        self._account = account
        self._session = session
        self._request = request
        self._limits = limits
        self._inbox = inbox
        self._deadline_s = time.monotonic() + limits.session_s
        self._stopped = threading.Event()
        self._cause = Cause.CLIENT_GONE
        self._progress = Progress()

    def stop(self, cause: Cause) -> None:
        """Breaks the session off, from any thread. Harmless once it has ended."""
        with self._world.lock:
            if self._stopped.is_set() or self._session.state != types.SESSION_STATE_RESERVED:
                return
            self._cause = cause
            self._resolve(decide(cause, self._progress, types.FINISH_REASON_UNSPECIFIED))
            self._stopped.set()
        if self._inbox is not None:
            self._inbox.close()

    def events(self, quota: types.Quota) -> Iterator[pb.CompletionEvent]:
        """What the client is sent.

        Raises:
            FakeError: the session ended badly.
        """
        started = pb.SessionStarted(session_id=self._session.session_id, quota=quota)
        yield pb.CompletionEvent(session_started=started)
        detail, finish_reason = "", types.FINISH_REASON_STOP
        try:
            finish_reason = yield from self._converse(quota)
            cause = Cause.FINISHED
        except _BrokenError as broken:
            cause, detail = broken.cause, broken.detail
        with self._world.lock:
            if self._stopped.is_set():
                cause = self._cause
            ending = decide(cause, self._progress, finish_reason)
            outcome = self._resolve(ending)
            account = self._world.account(self._account.account_id)
            after = account.book.quota(account.grant(self._world.clock.now_us()))
        if cause is Cause.CLIENT_GONE:
            return
        if ending.error:
            raise self._error(ending, detail)
        usage = pb.TokenUsage(input_tokens=self._progress.input_tokens, output_tokens=self._progress.output_tokens)
        yield pb.CompletionEvent(
            session_finished=pb.SessionFinished(
                finish_reason=ending.finish_reason,
                session_state=self._session.state,
                usage=usage,
                outcome=outcome,
                quota=after,
            )
        )

    def _converse(self, quota: types.Quota) -> Generator[pb.CompletionEvent, None, types.FinishReason.ValueType]:
        messages = list(self._request.messages)
        loop = ToolLoop(quota.max_tool_rounds)
        while True:
            answer = yield from self._answer(messages, quota)
            if self._inbox is None:
                return answer.reason
            wanted = loop.ask(answer.calls)
            if not wanted:
                if self._inbox.has_more():
                    raise _BrokenError(Cause.CALLER_ERROR, "Tool results came that were not asked for.")
                return answer.reason
            yield pb.CompletionEvent(tool_results_wanted=pb.ToolResultsWanted(tool_call_ids=wanted))
            self._collect(self._inbox, loop)
            messages += loop.messages(answer.text, answer.calls)

    def _answer(self, messages: list[pb.Message], quota: types.Quota) -> Generator[pb.CompletionEvent, None, _Answer]:
        """One round's answer, from the first candidate that gives one."""
        progress = self._progress
        candidates = list(self._session.candidates)
        if progress.serving is not None:
            # Output has begun: whoever gave it goes on.
            candidates = [progress.serving]
        for place, candidate in enumerate(candidates, start=1):
            try:
                return (yield from self._attempt(candidate, messages, quota))
            except replies.ProviderFailureError as failure:
                progress.alive = None
                progress.failures.append(Failed(candidate, failure.failure, failure.message))
            if progress.output_begun or place == len(candidates):
                raise _BrokenError(Cause.PROVIDER_FAILED)
            yield pb.CompletionEvent(
                attempt_failed=pb.AttemptFailed(
                    provider=candidate.provider, model=candidate.model, reason=progress.failures[-1].failure
                )
            )
        raise AssertionError("a session has at least one candidate")

    def _attempt(
        self, candidate: types.Candidate, messages: list[pb.Message], quota: types.Quota
    ) -> Generator[pb.CompletionEvent, None, _Answer]:
        progress = self._progress
        with self._world.lock:
            scripted = self._world.replies.popleft() if self._world.replies else None
            progress.alive = candidate
        text = ""
        calls: list[pb.ToolCall] = []
        limit = self._request.max_output_tokens or quota.max_output_tokens
        limit = min(limit, quota.max_output_tokens)
        for step in replies.answer(self._request, messages, scripted, limit):
            if isinstance(step, replies.Pause):
                self._wait(step.seconds)
                continue
            if isinstance(step, replies.Finish):
                progress.input_tokens += step.input_tokens
                progress.output_tokens += step.output_tokens
                with self._world.lock:
                    progress.alive, progress.serving, progress.answered = None, candidate, True
                return _Answer(text, calls, step.reason)
            self._wait(0)
            with self._world.lock:
                progress.output_begun, progress.serving = True, candidate
            if isinstance(step, str):
                text += step
                yield pb.CompletionEvent(text_delta=step)
            else:
                calls.append(step)
                progress.tool_calls += 1
                yield pb.CompletionEvent(tool_call=step)
        raise AssertionError("an answer ends with a Finish")

    def _wait(self, seconds: float) -> None:
        left_s = self._deadline_s - time.monotonic()
        if self._stopped.wait(max(0.0, min(seconds, left_s))):
            raise _BrokenError(self._cause)
        if seconds >= left_s:
            raise _BrokenError(Cause.TIME_LIMIT)

    def _collect(self, inbox: Inbox, loop: ToolLoop) -> None:
        until_s = time.monotonic() + self._limits.tool_results_s
        try:
            while not loop.complete:
                left_s = min(until_s, self._deadline_s) - time.monotonic()
                loop.add(inbox.next(max(0.0, left_s)))
        except queue.Empty:
            if self._deadline_s < until_s:
                raise _BrokenError(Cause.TIME_LIMIT) from None
            seconds = self._limits.tool_results_s
            raise _BrokenError(Cause.CALLER_ERROR, f"Tool results did not arrive within {seconds:g} s.") from None
        except ToolLoopError as error:
            raise _BrokenError(Cause.CALLER_ERROR, str(error)) from None
        except FakeError as error:
            raise _BrokenError(Cause.CALLER_ERROR, error.message) from None

    def _resolve(self, ending: Ending) -> types.SessionOutcome:
        """Resolves the session, unless it is resolved; the caller holds the lock."""
        progress = self._progress
        served = progress.serving or progress.alive
        outcome = types.SessionOutcome(
            finish_reason=ending.finish_reason,
            input_tokens=progress.input_tokens,
            output_tokens=progress.output_tokens,
            attempts=[
                types.Attempt(provider=failed.candidate.provider, model=failed.candidate.model, failure=failed.failure)
                for failed in progress.failures
            ],
            tool_call_count=progress.tool_calls,
        )
        if served is not None:
            outcome.attempts.add(provider=served.provider, model=served.model)
            outcome.served_provider, outcome.served_model = served.provider, served.model
            outcome.served_credential_mode = served.credential_mode
        world, now_us = self._world, self._world.clock.now_us()
        # An answer that was cut off, by its provider or by who broke the session off, has tokens that nobody counted.
        is_whole = progress.alive is None and ending.failed is None
        cost_micro = world.prices.session_micro(
            served,
            progress.failures,
            (progress.input_tokens, progress.output_tokens) if is_whole else None,
            is_counted=ending.release_reason is None,
        )
        if self._account.book.resolve(self._session, now_us, outcome, ending.release_reason, cost_micro):
            settle(self._account, now_us)
            fire_alerts(self._account, now_us)
            world.changed.notify_all()
        return self._session.outcome or outcome

    def _error(self, ending: Ending, detail: str) -> FakeError:
        counted = ending.release_reason is None
        metadata = {
            "session_id": self._session.session_id,
            "session_state": self._session.state_name,
            "counted": "true" if counted else "false",
        }
        if ending.failed is not None:
            detail = ending.failed.told(ending.error)
        retry_after = RATE_LIMIT_RETRY if ending.error == "PROVIDER_RATE_LIMITED" else None
        message = explanation(ending.error, detail, counted=counted)
        return FakeError(ending.error, message, metadata=metadata, retry_after=retry_after)
