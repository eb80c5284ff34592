"""One session, from its reservation to its last event.

It runs in a task of its own, not in the RPC's: the client's cancellation, the time limit and the drain each stop it
in the same way, once, and whatever stops it, it goes on to resolve itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from structlog.typing import FilteringBoundLogger

from services.router.broken import BrokenError, Quote, caller_error
from services.router.buffer import EventBuffer, ReaderStalledError
from services.router.domain.coalesce import coalesced
from services.router.domain.endings import Cause, Ending, FailedAttempt, Situation, decide
from services.router.domain.events import (
    AttemptFailed,
    Finish,
    ProviderEvent,
    SessionFinished,
    SessionStarted,
    ToolCall,
    ToolResultsWanted,
)
from services.router.domain.outcome import FinishReason, Outcome, SessionState
from services.router.domain.quota import Grant, Reservation, Resolution
from services.router.domain.request import (
    Candidate,
    CompletionRequest,
    Customer,
    Prompt,
)
from services.router.domain.tally import Tally
from services.router.domain.tool_loop import Answer, ToolLoop, ToolLoopError
from services.router.limits import SessionLimits
from services.router.ports import QuotaPort, ToolResultSource
from services.router.providers.port import Provider, ProviderError
from services.router.resolver import Claim, Resolver
from services.shared import failpoints
from services.shared.clock import Clock
from services.shared.errors import FlowStackError, Reason
from services.shared.log import frames_of

_DENIALS: Final = frozenset(
    {
        Reason.INVALID_REQUEST,
        Reason.SESSION_PARAMETERS_DIFFER,
        Reason.SESSION_ALREADY_RESOLVED,
        Reason.DUPLICATE_REQUEST,
        Reason.ENTITLEMENT_MISSING,
        Reason.SUBSCRIPTION_ENDED,
        Reason.BUDGET_EXCEEDED,
        Reason.PAYMENT_OVERDUE,
        Reason.ACCOUNT_SUSPENDED,
        Reason.BYOK_REQUIRED,
        Reason.SESSION_QUOTA_EXCEEDED,
        Reason.CONCURRENCY_LIMIT_EXCEEDED,
    }
)
"""The answers after which quota certainly holds no unit. After every other one it may."""


@dataclass(frozen=True, slots=True)
class World:
    """What every session works with."""

    quota: QuotaPort
    resolver: Resolver
    providers: Mapping[str, Provider]
    clock: Clock
    limits: SessionLimits
    log: FilteringBoundLogger
    """One for all: a logger is put together when it is used first, and that takes as long as a line of the log."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one session is to do. `results` is None in a Complete, which has no tool loop."""

    session_id: str
    customer: Customer
    request: CompletionRequest
    candidates: tuple[Candidate, ...]
    results: ToolResultSource | None


class Session:
    """Runs one assignment. Reads as: `_converse` does the work, `_end` decides and resolves."""

    def __init__(self, world: World, assignment: Assignment) -> None:
        self._world = world
        self._assignment = assignment
        self._began_s = world.clock.monotonic_s()
        self._tally = Tally(self._began_s)
        self._reserved = False
        self._plans_cap = 0
        self._stopped: Cause | None = None
        self._ending = False
        self._task: asyncio.Task[None] | None = None
        limits = world.limits
        self.buffer = EventBuffer(limits.buffer_events, limits.buffer_bytes, limits.reader_stall_s)

    def start(self) -> asyncio.Task[None]:
        """Begins, in a task of its own."""
        self._task = asyncio.create_task(self._run())
        return self._task

    def stop(self, cause: Cause) -> None:
        """Breaks the session off. The first cause counts; one that comes when the end is decided changes nothing."""
        if cause is Cause.CLIENT_GONE:
            self.buffer.abandon()
        if self._stopped is None and not self._ending and self._task is not None:
            self._stopped = cause
            self._task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        ceiling = loop.call_later(self._world.limits.time_limit_s, self.stop, Cause.TIME_LIMIT)
        try:
            broken, finish_reason = await self._work()
        except FlowStackError as denial:
            self.buffer.close(error=denial)
            return
        finally:
            self._ending = True
            ceiling.cancel()
        await self._end(broken, finish_reason)

    async def _work(self) -> tuple[BrokenError, FinishReason]:
        """Converses, and says how that came to its end.

        Raises:
            FlowStackError: quota refused the reservation; there is no session.
        """
        finish_reason = FinishReason.STOP
        try:
            finish_reason = await self._converse()
            broken = BrokenError(Cause.FINISHED)
        except asyncio.CancelledError:
            broken = BrokenError(Cause.SHUTTING_DOWN)
        except BrokenError as error:
            broken = error
        except ReaderStalledError:
            broken = BrokenError(Cause.READER_STALLED)
        except FlowStackError:
            if self._stopped is None:
                raise
            broken = BrokenError(self._stopped)
        except Exception as error:
            # A defect ends this session alone, uncounted. Its text may hold what a user sent.
            self._world.log.error("defect", error_type=type(error).__name__, traceback=frames_of(error))
            broken = BrokenError(Cause.INTERNAL)
        # A cancellation that a library turned into an error of its own is still what ended the session.
        return (broken if self._stopped is None else BrokenError(self._stopped)), finish_reason

    async def _converse(self) -> FinishReason:
        grant = await self._reserve()
        self._check_credentials()
        self._plans_cap = grant.quota.max_output_tokens
        prompt = self._assignment.request.prompt
        await self.buffer.put((SessionStarted(self._assignment.session_id, grant.quota),))
        results, loop = self._assignment.results, ToolLoop(grant.quota.max_tool_rounds)
        candidates = self._assignment.candidates
        while True:
            answer = await self._answer(prompt, candidates)
            if results is None:
                return answer.finish.reason
            wanted = loop.ask(answer.calls)
            if not wanted:
                _check_nothing_sent(results)
                return answer.finish.reason
            await self.buffer.put((ToolResultsWanted(wanted),))
            await self._collect(results, loop)
            prompt = loop.next_prompt(prompt, answer)
            # Output has begun: whoever gave it goes on.
            candidates = tuple(c for c in candidates if c is self._tally.serving)

    async def _reserve(self) -> Grant:
        assignment = self._assignment
        reservation = Reservation(
            account_id=assignment.customer.account_id,
            session_id=assignment.session_id,
            candidates=assignment.candidates,
            lease_s=self._world.limits.lease_s,
            request_id=assignment.request.request_id,
            api_key_id=assignment.customer.api_key_id,
            labels=assignment.request.prompt.labels,
        )
        self._reserved = True
        try:
            grant = await self._world.quota.reserve(reservation)
        except FlowStackError as error:
            if error.reason in _DENIALS:
                self._reserved = False
                raise
            raise BrokenError(Cause.RESERVATION_UNKNOWN) from None
        if grant.replayed:
            # Somebody has sent this reservation before; what it entitled to has been started, or given up.
            raise BrokenError(Cause.RESERVATION_UNKNOWN)
        failpoints.hit("router.after_reserve")
        return grant

    def _check_credentials(self) -> None:
        """Every candidate has to be one that could be called, and quota's refusals of the request come first."""
        for candidate in self._assignment.candidates:
            if not candidate.has_credentials:
                raise BrokenError(
                    Cause.CREDENTIALS_MISSING,
                    f"Provider: {candidate.provider}.",
                    metadata={"provider": candidate.provider},
                )

    async def _answer(self, prompt: Prompt, candidates: Sequence[Candidate]) -> Answer:
        """One round's answer, from the first candidate that gives one."""
        quotes: list[Quote] = []
        for position, candidate in enumerate(candidates, start=1):
            try:
                return await self._attempt(candidate, prompt)
            except ProviderError as error:
                self._tally.fail(error.failure, error.request_id, self._world.clock.monotonic_s())
                failed = FailedAttempt(error.failure, candidate.credential_mode)
                quotes.append(Quote(candidate.provider, failed, error.message, error.retry_after))
                if self._tally.output_begun:
                    raise BrokenError(Cause.PROVIDER_FAILED, quotes=quotes[-1:]) from None
                if position == len(candidates):
                    raise BrokenError(Cause.PROVIDER_FAILED, quotes=quotes) from None
                await self.buffer.put((AttemptFailed(candidate.provider, candidate.model, error.failure),))
        raise AssertionError("a session has at least one candidate")

    async def _attempt(self, candidate: Candidate, prompt: Prompt) -> Answer:
        """One call of one candidate, its output handed on as it comes."""
        monotonic_s, tally, put = self._world.clock.monotonic_s, self._tally, self.buffer.put
        answer: list[ProviderEvent] | None = None if self._assignment.results is None else []
        tally.begin(candidate, monotonic_s())
        prompt = _capped(prompt, self._plans_cap, candidate)
        async with self._world.providers[candidate.provider].open(candidate, prompt, tally.sent) as stream:
            tally.opened(stream.request_id)
            finish = None
            while finish is None:
                events = await stream.read()
                if isinstance(events[-1], Finish):
                    finish, events = events[-1], events[:-1]
                if events:
                    events = coalesced(events)  # type: ignore[assignment, arg-type]  # output in, output out
                    if not tally.output_begun:
                        tally.output(monotonic_s())
                    tally.tool_calls += sum(type(event) is ToolCall for event in events)
                    if answer is not None:
                        answer.extend(events)
                    await put(events)  # type: ignore[arg-type]  # a Finish comes last only, and was taken off
        tally.finish(finish, monotonic_s())
        return Answer.of(finish, answer or ())

    async def _collect(self, results: ToolResultSource, loop: ToolLoop) -> None:
        limit_s = self._world.limits.tool_results_s
        try:
            async with asyncio.timeout(limit_s):
                while not loop.complete:
                    loop.add(await results.receive())
        except TimeoutError:
            raise BrokenError(Cause.CALLER_ERROR, f"Tool results did not arrive within {limit_s:g} s.") from None
        except ToolLoopError as error:
            raise BrokenError(Cause.CALLER_ERROR, str(error)) from None
        except FlowStackError as error:
            raise caller_error(error) from None

    async def _end(self, broken: BrokenError, finish_reason: FinishReason) -> None:
        """Decides how the session ends, resolves it, and tells the client."""
        tally, assignment = self._tally, self._assignment
        situation = Situation(
            broken.cause,
            output_begun=tally.output_begun,
            answered=tally.answered,
            alive=tally.alive,
            finish_reason=finish_reason,
            failures=tally.failures,
        )
        ending = decide(situation)
        tally.abandon(self._world.clock.monotonic_s())
        outcome = tally.outcome(ending)
        state, quota = SessionState.RESERVED, None
        if self._reserved:
            resolution = await self._resolve(ending, outcome)
            if resolution is not None:
                state, quota = resolution.state, resolution.quota
            self._note(ending, outcome, state)
        if ending.error is None:
            self.buffer.close(SessionFinished(outcome, state, quota))
            return
        session_id = assignment.session_id if self._reserved else ""
        self.buffer.close(error=broken.told(ending, session_id, state))

    def _note(self, ending: Ending, outcome: Outcome, state: SessionState) -> None:
        """Writes the session's line of the log: who, whom, how it ended, and nothing of what was said."""
        self._world.log.info(
            "session",
            session_id=self._assignment.session_id,
            account_id=self._assignment.customer.account_id,
            provider=outcome.served_provider,
            model=outcome.served_model,
            session_state=state.name,
            reason="" if ending.error is None else ending.error.value,
            duration_ms=round((self._world.clock.monotonic_s() - self._began_s) * 1000, 2),
        )

    async def _resolve(self, ending: Ending, outcome: Outcome) -> Resolution | None:
        """Starts the resolution, and waits a little for its answer; it goes on either way."""
        customer, world = self._assignment.customer, self._world
        claim = Claim(customer.account_id, self._assignment.session_id, self._began_s + world.limits.lease_s)
        task = world.resolver.start(claim, ending, outcome)
        await asyncio.wait((task,), timeout=world.limits.resolution_answer_s)
        return task.result() if task.done() and not task.cancelled() else None


def _check_nothing_sent(results: ToolResultSource) -> None:
    """Looks at what has come since the last results that were owed, now that none will be."""
    try:
        unasked = results.unasked()
    except FlowStackError as error:
        raise caller_error(error) from None
    if unasked is not None:
        raise BrokenError(Cause.CALLER_ERROR, "Tool results came that were not asked for.")


def _capped(prompt: Prompt, plans: int, candidate: Candidate) -> Prompt:
    """`prompt` within the plan's cap on output tokens, `plans`; 0 means that there is none.

    A cap that is over what the model can give would be refused by its provider, though the caller asked for nothing.
    """
    asked = prompt.max_output_tokens
    if plans <= 0 or (asked is not None and asked <= plans):
        return prompt
    models = candidate.max_output_tokens
    return replace(prompt, max_output_tokens=plans if models is None else min(plans, models))
