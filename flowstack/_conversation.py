"""What a chat's events add up to, over all tries at it. Pure: sync and async agents share it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from flowstack._client import RETRIES_MAX, may_retry
from flowstack._errors import DuplicateRequestError, FlowStackError, InternalError
from flowstack._routes import SIMULATOR, credentials_kind
from flowstack._tools import ToolOutcome
from flowstack._values import (
    AttemptFailed,
    Event,
    ReasoningDelta,
    Reply,
    SessionFinished,
    SessionInfo,
    SessionStarted,
    TextDelta,
    ToolCalled,
    reply_from,
    word,
)


class Conversation:
    """Adds up the events of one session, over all tries at it.

    Attributes:
        session_id: empty until the session is reserved.
        heard: something has come of this try.
        begun: output has come: from here on a repeat would not be the same to a reader, or to tools.
        retries: how many tries there were before this one.
        reply: the answer, once the session has ended.
    """

    def __init__(self, request: pb.CompleteRequest) -> None:
        self.request_id = request.request_id
        self.session_id = ""
        self.heard = self.begun = False
        self.retries = 0
        self.reply: Reply | None = None
        self._text: list[str] = []
        self._calls: list[ToolCalled] = []
        self._candidates = [
            (request.provider, request.model),
            *((one.provider, one.model) for one in request.fallbacks),
        ]
        self._own_keys = [credentials.WhichOneof("credentials") for credentials in request.byok]
        self._attempts_failed = 0
        self._in_doubt = False

    def feed(self, event: pb.CompletionEvent) -> tuple[Event | None, list[ToolCalled]]:
        """Takes one event: what a reader is shown, and the tools whose results are owed now."""
        self.heard = True
        kind = event.WhichOneof("event")
        if kind == "text_delta":
            self.begun = True
            self._text.append(event.text_delta)
            return TextDelta(event.text_delta), []
        if kind == "reasoning_delta":
            self.begun = True
            return ReasoningDelta(event.reasoning_delta), []
        if kind == "tool_call":
            self.begun = True
            call = ToolCalled(event.tool_call.id, event.tool_call.name, event.tool_call.arguments_json)
            self._calls.append(call)
            return call, []
        if kind == "tool_results_wanted":
            wanted = set(event.tool_results_wanted.tool_call_ids)
            owed = [call for call in self._calls if call.id in wanted]
            # The answer is what the model says last, after its tools.
            self._calls, self._text = [], []
            return None, owed
        if kind == "session_started":
            self.session_id = event.session_started.session_id
            return SessionStarted(self.session_id, event.session_started.quota.sessions_remaining), []
        if kind == "attempt_failed":
            self._attempts_failed += 1
            failed = event.attempt_failed
            reason = word(type_pb2.AttemptFailure, failed.reason, "ATTEMPT_FAILURE_")
            return AttemptFailed(failed.provider, failed.model, reason), []
        if kind == "session_finished":
            self.reply = reply_from("".join(self._text), self.session_id, self.request_id, event.session_finished)
            return SessionFinished(self.reply), []
        return None, []  # a newer router's event

    def ended(self) -> Reply:
        """The answer, after the stream ended OK.

        Raises:
            InternalError: it ended without its last message.
        """
        if self.reply is None:
            raise InternalError(
                "The stream ended without saying how the session ended. Usage says whether it was counted."
            )
        return self.reply

    def failed(self, error: FlowStackError) -> None:
        """Adds to an error of this try what is known at this end, where no service could say it.

        After output a session whose client leaves or runs out of time is counted. Where the connection broke off, the
        router may have seen its client leave, or may have died, and then nothing is counted: that is not known here.
        """
        details = error.details
        if error.reason:
            # On a repeat, the session that is there already is that of an earlier try.
            if isinstance(error, DuplicateRequestError) and self.retries and _state(error) == "COMMITTED":
                details["counted"] = "true"
        elif self.begun and error.code in _OUR_DOING:
            details["counted"] = "true"
        elif self.heard or error.code in _OUR_DOING or details.get("connected"):
            details["counted"] = "unknown"
        if self.session_id:
            details.setdefault("session_id", self.session_id)
        if error.counted is False and self._in_doubt:
            details["counted"] = "unknown"
        self._in_doubt = error.counted is None

    def may_retry(self, error: FlowStackError) -> bool:
        """True where a repeat with the same request_id is safe, and the caller has seen nothing of this try.

        On a repeat the first try's session may still be on its way to being released; then it is in the way.
        """
        if isinstance(error, DuplicateRequestError):
            return _state(error) == "RESERVED" and 0 < self.retries < RETRIES_MAX
        return may_retry(error, safe=not self.begun and not error.counted, retries=self.retries)

    def again(self) -> None:
        """Begins the next try."""
        self.retries += 1
        self.heard, self._attempts_failed = False, 0

    def unfinished(self, session_id: str) -> SessionInfo:
        """A counted session that ended before it could say who served it: the candidate whose turn it was."""
        provider, model = self._candidates[min(self._attempts_failed, len(self._candidates) - 1)]
        own_key = provider == SIMULATOR or credentials_kind(provider) in self._own_keys
        mode = "byok" if own_key else "managed"
        return SessionInfo(session_id, "committed", provider, model, mode, self.request_id)


_OUR_DOING: Final = ("DEADLINE_EXCEEDED", "CANCELLED")
"""What gRPC itself says where this end gave up."""


def _state(error: FlowStackError) -> str:
    """The state of the session that an error speaks of, such as `RESERVED`."""
    return str(error.details.get("session_state", "")).removeprefix("SESSION_STATE_")


def tool_results(outcomes: Iterable[tuple[ToolCalled, ToolOutcome]]) -> pb.ChatRequest:
    """The message that answers a round of tool calls."""
    return pb.ChatRequest(
        tool_results=pb.ToolResults(
            results=[
                pb.ToolResultPart(tool_call_id=call.id, content=outcome.content, is_error=outcome.is_error)
                for call, outcome in outcomes
            ]
        )
    )
