"""The blocking agent."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Unpack

import grpc
from flowstack_protos.billing.v1 import usage_service_pb2
from flowstack_protos.router.v1 import router_service_pb2 as pb

from flowstack import _account, _current, _routes, _runner
from flowstack._alerts import Alerts, Budget
from flowstack._base import BaseAgent
from flowstack._chat import ChatOptions, Message
from flowstack._client import Client, backoff_s
from flowstack._connection import Connection
from flowstack._conversation import Conversation, tool_results
from flowstack._core import Plan
from flowstack._errors import CallCancelledError, FlowStackError
from flowstack._methods import RouterService, UsageService
from flowstack._tools import ToolOutcome, unknown
from flowstack._values import (
    Event,
    Reply,
    SessionFinished,
    TextDelta,
    ToolCalled,
    ToolReturned,
    Usage,
    usage_from,
    usage_told,
)
from flowstack._vault import Vault
from flowstack._watch import Watch


class Agent(BaseAgent):
    """Talks to models by the session: one `chat` is one session, whatever its tokens and tools.

    Thread-safe, and a context manager; all agents of a process share one channel for each service. Calls keep no
    memory of one another.

    Args:
        name: for reports: each session carries it as the label `agent`.
        api_key: FlowStack's key, `fs_…`; from FLOWSTACK_API_KEY where it is not given.
        provider: such as `bedrock` or `openai`; from FLOWSTACK_PROVIDER, else the operator's default.
        model: a model or alias of the provider's; from FLOWSTACK_MODEL, else the operator's default.
        byok: your own credentials for the provider, sent with each request and kept nowhere: `{"api_key": …}`, for
            Bedrock `{"access_key_id": …, "secret_access_key": …}`.
        system: instructions to the model, for every chat.
        endpoint: where FlowStack is; from FLOWSTACK_ENDPOINT and its like, else this machine. See `_endpoints`.
        record_providers: note in the vault collection `provider_switches` who served each counted chat.
        options: more of ChatOptions, for every chat.

    Raises:
        ConfigurationError: no key, a malformed one, a bad address, or byok that does not fit the provider.
    """

    vault: Vault
    budget: Budget
    alerts: Alerts

    def _connect(self, connection: Connection) -> None:
        self._client = Client(connection)
        self.vault = Vault(self._client, self._core.flush)
        self.budget = Budget(self._client)
        self.alerts = Alerts(self._client)

    def chat(self, message: Message, **options: Unpack[ChatOptions]) -> Reply:
        """Has one session, tool calls included, and answers the model's text.

        Sync tools run in the calling thread, async ones in a loop of their own. A failed attempt is repeated with the
        same request_id where the service was unavailable and nothing had come yet, so that it never costs twice.
        Within a running tool this is a session of its own, without tools. A thread that a tool starts does not know of
        the tool, unless it is run in a copy of its context, as by `asyncio.to_thread`: a chat there has its tools.

        Args:
            message: what to say, or a whole conversation.
            options: see ChatOptions; they take the place of the agent's.

        Raises:
            QuotaExceededError: the period's sessions are used up.
            FlowStackError: see `_errors`; `counted` says whether the session was counted.
        """
        for event in self._events(message, options, Leaving()):
            if isinstance(event, SessionFinished):
                return event.reply
        raise AssertionError("a conversation ends with its last event or an error")

    def stream(self, message: Message, **options: Unpack[ChatOptions]) -> Stream:
        """As `chat`, but event by event. Closing or dropping the stream cancels the session.

        Raises:
            FlowStackError: from the iterator, as in `chat`.
        """
        leaving = Leaving()
        return Stream(Reading(self._events(message, options, leaving), leaving))

    def _events(self, message: Message, options: ChatOptions, leaving: Leaving) -> Generator[Event]:
        if not self._core.route.provider:
            self._core.found_provider(self._client.run(_routes.default_provider()))
        plan = self._core.plan(message, options)
        return self._attempts(plan, leaving)

    def _attempts(self, plan: Plan, leaving: Leaving) -> Generator[Event]:
        conversation = Conversation(plan.request)
        while True:
            try:
                yield from self._attempt(plan, conversation, leaving)
                return
            except FlowStackError as error:
                conversation.failed(error)
                if not conversation.may_retry(error):
                    if error.counted:
                        plan.note_failed(conversation, error.session_id)
                    raise
            time.sleep(backoff_s(conversation.retries))
            conversation.again()

    def _attempt(self, plan: Plan, conversation: Conversation, leaving: Leaving) -> Iterator[Event]:
        to_send: queue.SimpleQueue[pb.ChatRequest | None] = queue.SimpleQueue()
        if plan.tools:
            to_send.put(pb.ChatRequest(start=plan.request))
            call = self._client.open_chat(RouterService.Chat, iter(to_send.get, None), plan.timeout_s)
        else:
            call = self._client.open(RouterService.Complete, plan.request, plan.timeout_s)
        leaving.opened(call)
        try:
            for message in call:
                event, owed = conversation.feed(message)
                if isinstance(event, SessionFinished):
                    continue  # handed on once the status is in
                if event is not None:
                    yield event
                if owed:
                    outcomes = self._run_tools(plan, owed)
                    to_send.put(tool_results(outcomes))
                    for called, outcome in outcomes:
                        yield ToolReturned(called.id, called.name, outcome.content, outcome.is_error)
            reply = conversation.ended()
        except grpc.RpcError as failure:
            raise self._client.error(RouterService.Chat, failure, answered=conversation.heard) from None
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            if conversation.begun:  # after output, a session that its reader leaves is counted
                plan.note_failed(conversation)
            raise
        finally:
            to_send.put(None)
            call.cancel()
        self._core.note(reply.session)
        yield SessionFinished(reply)

    def _run_tools(self, plan: Plan, owed: list[ToolCalled]) -> list[tuple[ToolCalled, ToolOutcome]]:
        """Async tools run beside one another and beside the sync ones, which run here, in order."""
        with _current.running_tool_of(self._core):
            waiting: list[tuple[ToolCalled, Callable[[], ToolOutcome]]] = []
            for called in owed:
                tool = plan.tools.get(called.name)
                if tool is None:
                    outcome = unknown(called.name, plan.tools)
                    waiting.append((called, lambda outcome=outcome: outcome))  # type: ignore[misc]
                elif tool.is_async:
                    waiting.append((called, _runner.start(tool, called.arguments_json)))
                else:
                    waiting.append((called, lambda tool=tool, called=called: _runner.run(tool, called.arguments_json)))  # type: ignore[misc]
            return [(called, finish()) for called, finish in waiting]

    def get_usage(self) -> Usage:
        """The usage of the current period, live: a session that has ended is in it. Works at the limit.

        Raises:
            FlowStackError: see `_errors`.
        """
        response = self._client.call(UsageService.GetUsage, usage_service_pb2.GetUsageRequest())
        return usage_from(response.usage)

    def watch_usage(self) -> Watch[Usage]:
        """The usage now and after each change, until the watch is closed; several changes within a moment are one.

        Raises:
            FlowStackError: from the iterator; see `_errors`.
        """
        return self._client.watch(UsageService.WatchUsage, usage_service_pb2.WatchUsageRequest(), usage_told)

    def get_tier_info(self) -> dict[str, Any]:
        """The plan in force: current_tier, can_use_managed, price and more; see `_account.tier_info`.

        Raises:
            FlowStackError: see `_errors`.
        """
        return self._client.run(_account.tier_info())

    def estimate_cost(
        self,
        sessions: int,
        provider: str,
        model: str,
        *,
        input_tokens: int = 5_625,
        output_tokens: int = 1_875,
        price_table: str = "",
    ) -> list[dict[str, Any]]:
        """What sessions would cost a month on each plan that allows them; see `_account.cost_estimates`.

        Args:
            sessions: how many a month.
            provider: whom sessions on your own keys run at.
            model: its model, by name or alias.
            input_tokens: of a session's prompts.
            output_tokens: of its answers.
            price_table: empty for today's prices, `seed-example` for those of the published comparison.

        Raises:
            FlowStackError: see `_errors`.
        """
        steps = _account.cost_estimates(
            sessions, provider, model, input_tokens=input_tokens, output_tokens=output_tokens, price_table=price_table
        )
        return self._client.run(steps)

    def models(self, provider: str = "") -> list[dict[str, Any]]:
        """The models that may be asked for: provider, model, aliases, managed and byok.

        Raises:
            ModelNotFoundError: a provider that the operator has not.
        """
        return [_account.model_info(model) for model in self._client.run(_routes.list_models(provider))]

    def flush(self) -> None:
        """Waits until the notes of earlier chats are in the vault, at most 5 s."""
        self._core.flush()

    def close(self) -> None:
        """Stores what was noted, and lets go of the channels. Repeatable."""
        self._core.close()
        self._client.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Leaving:
    """Lets another thread than the reader's break a stream off."""

    def __init__(self) -> None:
        self.left = False
        self._call: Any = None

    def opened(self, call: Any) -> None:
        """Notes the call that leaving has to cancel."""
        self._call = call
        if self.left:
            call.cancel()

    def leave(self) -> None:
        """Cancels the call, and those of later tries."""
        self.left = True
        if self._call is not None:
            self._call.cancel()


class Reading:
    """The events as a stream reads them, closed from whichever thread."""

    def __init__(self, events: Generator[Event], leaving: Leaving) -> None:
        self._events, self._leaving = events, leaving

    def __iter__(self) -> Reading:
        return self

    def __next__(self) -> Event:
        try:
            return next(self._events)
        except CallCancelledError:
            if self._leaving.left:
                raise StopIteration from None
            raise

    def close(self) -> None:
        """Cancels the session where it still runs."""
        self._leaving.leave()
        try:
            self._events.close()
        except ValueError:
            pass  # another thread is reading, and is told by the call's end


class Stream:
    """The events of one session; iterate it, or `text` for the text alone. A context manager.

    Attributes:
        reply: the answer, once the stream has ended; None before.
    """

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self.reply: Reply | None = None

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = next(self._events)
        if isinstance(event, SessionFinished):
            self.reply = event.reply
        return event

    @property
    def text(self) -> Iterator[str]:
        """The text, as it comes."""
        return (event.text for event in self if isinstance(event, TextDelta))

    def close(self) -> None:
        """Cancels the session where it still runs; another thread that reads gets no more. Repeatable."""
        self._events.close()  # type: ignore[attr-defined]  # it is a Reading

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
