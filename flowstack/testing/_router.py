"""The fake's router: every provider says what was scripted, else echoes, steered by the labels of `echo`."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import grpc
from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2 as t

from flowstack.testing._quota import Account, Session, state_word
from flowstack.testing._refusal import Refusal, invalid

MODELS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "echo": {"echo-1": ("default",)},
    "openai": {"gpt-4o": ("default",), "gpt-3.5-turbo": ()},
    "anthropic": {"claude-sonnet": ("claude-3-sonnet", "default"), "claude-opus": ("claude-3-opus",)},
    "bedrock": {"anthropic.claude-sonnet": ("claude-3-sonnet", "default"), "anthropic.claude-opus": ("claude-3-opus",)},
}
RESULTS_SECONDS: Final = 60.0
STATES: Final = {True: t.SESSION_STATE_COMMITTED, False: t.SESSION_STATE_RELEASED}


class FakeRouter:
    """RouterService.

    Attributes:
        scripted: what the next sessions say, in order.
        requests: every request that reserved a session, for assertions. Credentials are left out.
    """

    def __init__(self) -> None:
        self.scripted: deque[str] = deque()
        self.requests: list[pb.CompleteRequest] = []

    async def ListModels(self, account: Account, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
        """The models, by provider and name."""
        if request.provider:
            _provider(request.provider)
        return pb.ListModelsResponse(
            models=[
                pb.Model(
                    provider=provider,
                    model=model,
                    aliases=aliases,
                    managed_available=provider in account.plan.managed,
                    byok_available=True,
                )
                for provider in sorted(MODELS)
                for model, aliases in sorted(MODELS[provider].items())
                if request.provider in ("", provider)
            ]
        )

    async def complete(
        self, account: Account, request: pb.CompleteRequest, messages: AsyncIterator[Any] | None
    ) -> AsyncIterator[pb.CompletionEvent]:
        """One session. `messages` are the client's further ones in a Chat; None in a Complete."""
        model = _model(request.provider, request.model)
        for fallback in request.fallbacks:
            _model(fallback.provider, fallback.model)
        keys = {credential.WhichOneof("credentials") for credential in request.byok}
        script = _Script(request)
        providers = [request.provider, *(fallback.provider for fallback in request.fallbacks)]
        session = account.reserve(request.request_id, [(p, p not in keys and p != "echo") for p in providers])
        begun = False
        try:
            kept = pb.CompleteRequest()
            kept.CopyFrom(request)
            kept.ClearField("byok")
            self.requests.append(kept)
            yield pb.CompletionEvent(
                session_started=pb.SessionStarted(session_id=session.session_id, quota=account.quota())
            )
            if script.tool:
                begun = True
                called = pb.ToolCall(id="call_echo_1", name=script.tool, arguments_json=script.arguments)
                yield pb.CompletionEvent(tool_call=called)
                if messages is None:
                    yield self._finish(account, session, request, model, t.FINISH_REASON_TOOL_CALLS, 0)
                    return
                wanted = pb.ToolResultsWanted(tool_call_ids=[called.id])
                yield pb.CompletionEvent(tool_results_wanted=wanted)
                await _results(messages, {called.id})
            said = self.scripted.popleft() if self.scripted else None
            count = 0
            for text in script.words(said):
                if count == script.fail_after:
                    raise _provider_failed()
                await asyncio.sleep(script.delay_s)
                begun, count = True, count + 1
                yield pb.CompletionEvent(text_delta=text)
            if count == script.fail_after:
                raise _provider_failed()
            cut = request.HasField("max_output_tokens") and count == request.max_output_tokens
            reason = t.FINISH_REASON_MAX_OUTPUT_TOKENS if cut else t.FINISH_REASON_STOP
            yield self._finish(account, session, request, model, reason, count)
        except Refusal as refusal:
            # The caller's own doing after output is counted; a provider's failure is not.
            session.state = STATES[refusal.reason == "INVALID_REQUEST" and begun]
            refusal.metadata |= {
                "session_id": session.session_id,
                "session_state": state_word(session.state),
                "counted": "true" if session.state == t.SESSION_STATE_COMMITTED else "false",
            }
            raise
        finally:
            if session.state == t.SESSION_STATE_RESERVED:  # cancelled
                session.state = STATES[begun or session.managed]

    @staticmethod
    def _finish(  # noqa: PLR0917  # what a last event is made of
        account: Account, session: Session, request: pb.CompleteRequest, model: str, reason: Any, words: int
    ) -> pb.CompletionEvent:
        session.state = t.SESSION_STATE_COMMITTED
        mode = t.CREDENTIAL_MODE_MANAGED if session.managed else t.CREDENTIAL_MODE_BYOK
        asked = sum(len(part.text.split()) for message in request.messages for part in message.content)
        return pb.CompletionEvent(
            session_finished=pb.SessionFinished(
                finish_reason=reason,
                session_state=session.state,
                usage=pb.TokenUsage(input_tokens=asked, output_tokens=words),
                outcome=t.SessionOutcome(
                    finish_reason=reason,
                    served_provider=request.provider,
                    served_model=model,
                    served_credential_mode=mode,
                    input_tokens=asked,
                    output_tokens=words,
                ),
                quota=account.quota(),
            )
        )


class _Script:
    """What a request asks the simulator for."""

    def __init__(self, request: pb.CompleteRequest) -> None:
        if not request.messages:
            raise invalid("messages", "must hold at least one message")
        labels = request.labels
        self.tool = labels.get("echo.tool", "")
        if self.tool and self.tool not in {tool.name for tool in request.tools}:
            raise invalid("labels", "echo.tool has to be the name of one of the request's tools")
        self.delay_s = self._number(labels, "echo.delay_ms", 0) / 1000
        self.fail_after = self._number(labels, "echo.fail_after", -1)
        self._count = self._number(labels, "echo.words", -1)
        self._limit = request.max_output_tokens if request.HasField("max_output_tokens") else -1
        last = next((m for m in reversed(request.messages) if m.role == pb.MESSAGE_ROLE_USER), pb.Message())
        self._said = " ".join(part.text for part in last.content)
        self.arguments = json.dumps({"message": " ".join(self._said.split())}, ensure_ascii=False)

    @staticmethod
    def _number(labels: Any, name: str, default: int) -> int:
        if name not in labels:
            return default
        if not (labels[name].isascii() and labels[name].isdigit()):
            raise invalid("labels", f"{name} has to be a whole number")
        return int(labels[name])

    def words(self, scripted: str | None) -> list[str]:
        """The deltas: the echo's words, or a scripted answer as it is."""
        if scripted is not None:
            return [scripted] if scripted else []
        words = self._said.split()
        count = (len(words) if self._count < 0 else self._count) if words else 0
        count = count if self._limit < 0 else min(count, self._limit)
        return [words[n % len(words)] if n == 0 else f" {words[n % len(words)]}" for n in range(count)]


async def _results(messages: AsyncIterator[Any], wanted: set[str]) -> None:
    """Takes results until all that are owed are there.

    Raises:
        Refusal: INVALID_REQUEST for what was not owed, for a half-close, and after a minute.
    """
    while wanted:
        try:
            message = await asyncio.wait_for(anext(messages), RESULTS_SECONDS)
        except (StopAsyncIteration, TimeoutError):
            raise invalid("tool_results", "tool results were owed and did not come") from None
        ids = [result.tool_call_id for result in message.tool_results.results]
        if not ids or len(set(ids)) < len(ids) or not wanted >= set(ids):
            raise invalid("tool_results", "results have to be to exactly the calls that were named")
        wanted -= set(ids)


def _provider_failed() -> Refusal:
    text = "The provider could not serve the session. Try again, or name a fallback. The session was not counted."
    return Refusal(grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE", text)


def _provider(name: str) -> Mapping[str, tuple[str, ...]]:
    if name not in MODELS:
        raise _not_found(f"That provider is not configured here.{_near(name, MODELS)} Configured: {', '.join(MODELS)}.")
    return MODELS[name]


def _model(provider: str, name: str) -> str:
    models = _provider(provider)
    for model, aliases in models.items():
        if name in (model, *aliases):
            return model
    known = [alias for model, aliases in models.items() for alias in (model, *aliases)]
    raise _not_found(f"The provider {provider} has no such model here.{_near(name, known)}")


def _near(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), 3)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def _not_found(message: str) -> Refusal:
    return Refusal(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", message)
