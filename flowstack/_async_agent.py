"""The agent for asyncio, over grpc.aio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Unpack

import grpc
from flowstack_protos.billing.v1 import usage_service_pb2
from flowstack_protos.router.v1 import router_service_pb2 as pb

from flowstack import _account, _current, _routes, _runner
from flowstack._alerts import AsyncAlerts, AsyncBudget
from flowstack._base import BaseAgent
from flowstack._chat import ChatOptions, Message
from flowstack._client import AsyncClient, backoff_s
from flowstack._connection import Connection
from flowstack._conversation import Conversation, tool_results
from flowstack._core import Plan
from flowstack._errors import FlowStackError
from flowstack._methods import RouterService, UsageService
from flowstack._tools import ToolOutcome, raised, unknown
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
from flowstack._vault import AsyncVault
from flowstack._watch import AsyncWatch


class AsyncAgent(BaseAgent):
    """As Agent, with methods to be awaited; see there for arguments and errors.

    Belongs to the event loop that it is used in. Async tools of one round run beside one another in it, sync ones in
    threads; a tool may take 55 s. Close it with `async with` or `await agent.close()`.
    """

    vault: AsyncVault
    budget: AsyncBudget
    alerts: AsyncAlerts

    def _connect(self, connection: Connection) -> None:
        self._client = AsyncClient(connection)
        self.vault = AsyncVault(self._client, self._core.flush)
        self.budget = AsyncBudget(self._client)
        self.alerts = AsyncAlerts(self._client)

    async def chat(self, message: Message, **options: Unpack[ChatOptions]) -> Reply:
        """As Agent.chat. Cancelling the task cancels the session."""
        async with AsyncStream(self._events(message, options)) as stream:
            async for event in stream:
                if isinstance(event, SessionFinished):
                    return event.reply
        raise AssertionError("a conversation ends with its last event or an error")

    def stream(self, message: Message, **options: Unpack[ChatOptions]) -> AsyncStream:
        """As Agent.stream. Use it with `async with`, so that leaving it cancels the session."""
        return AsyncStream(self._events(message, options))

    async def _events(self, message: Message, options: ChatOptions) -> AsyncIterator[Event]:
        if not self._core.route.provider:
            self._core.found_provider(await self._client.run(_routes.default_provider()))
        plan = self._core.plan(message, options)
        conversation = Conversation(plan.request)
        while True:
            attempt = self._attempt(plan, conversation)
            try:
                async for event in attempt:
                    yield event
                return
            except FlowStackError as error:
                conversation.failed(error)
                if not conversation.may_retry(error):
                    if error.counted:
                        plan.note_failed(conversation, error.session_id)
                    raise
            finally:
                # An async generator that is left is closed here and now, not when it is collected.
                await attempt.aclose()  # type: ignore[attr-defined]
            await asyncio.sleep(backoff_s(conversation.retries))
            conversation.again()

    async def _attempt(self, plan: Plan, conversation: Conversation) -> AsyncIterator[Event]:
        call = await self._open(plan)
        try:
            async for message in call:
                event, owed = conversation.feed(message)
                if isinstance(event, SessionFinished):
                    continue  # handed on once the status is in
                if event is not None:
                    yield event
                if owed:
                    outcomes = await self._run_tools(plan, owed)
                    await _write(call, tool_results(outcomes))
                    for called, outcome in outcomes:
                        yield ToolReturned(called.id, called.name, outcome.content, outcome.is_error)
            reply = conversation.ended()
        except grpc.RpcError as failure:
            raise self._client.error(RouterService.Chat, failure, answered=conversation.heard) from None
        except (GeneratorExit, asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            if conversation.begun:  # after output, a session that its reader leaves is counted
                plan.note_failed(conversation)
            raise
        finally:
            call.cancel()
        self._core.note(reply.session)
        yield SessionFinished(reply)

    async def _open(self, plan: Plan) -> Any:
        if not plan.tools:
            return self._client.open(RouterService.Complete, plan.request, plan.timeout_s)
        call = self._client.open_chat(RouterService.Chat, plan.timeout_s)
        await _write(call, pb.ChatRequest(start=plan.request))
        return call

    async def _run_tools(self, plan: Plan, owed: list[ToolCalled]) -> list[tuple[ToolCalled, ToolOutcome]]:
        async def one(called: ToolCalled) -> ToolOutcome:
            tool = plan.tools.get(called.name)
            if tool is None:
                return unknown(called.name, plan.tools)
            return await _runner.run_async(tool, called.arguments_json)

        with _current.running_tool_of(self._core):
            async with asyncio.TaskGroup() as group:
                tasks = [(called, group.create_task(one(called))) for called in owed]
        # Where nobody cancelled the group, a tool that is cancelled did that itself.
        return [
            (called, raised(asyncio.CancelledError()) if task.cancelled() else task.result()) for called, task in tasks
        ]

    async def get_usage(self) -> Usage:
        """As Agent.get_usage."""
        response = await self._client.call(UsageService.GetUsage, usage_service_pb2.GetUsageRequest())
        return usage_from(response.usage)

    def watch_usage(self) -> AsyncWatch[Usage]:
        """As Agent.watch_usage. Use it with `async with`, so that leaving it ends the watch."""
        return self._client.watch(UsageService.WatchUsage, usage_service_pb2.WatchUsageRequest(), usage_told)

    async def get_tier_info(self) -> dict[str, Any]:
        """As Agent.get_tier_info."""
        return await self._client.run(_account.tier_info())

    async def estimate_cost(
        self,
        sessions: int,
        provider: str,
        model: str,
        *,
        input_tokens: int = 5_625,
        output_tokens: int = 1_875,
        price_table: str = "",
    ) -> list[dict[str, Any]]:
        """As Agent.estimate_cost."""
        steps = _account.cost_estimates(
            sessions, provider, model, input_tokens=input_tokens, output_tokens=output_tokens, price_table=price_table
        )
        return await self._client.run(steps)

    async def models(self, provider: str = "") -> list[dict[str, Any]]:
        """As Agent.models."""
        return [_account.model_info(model) for model in await self._client.run(_routes.list_models(provider))]

    async def flush(self) -> None:
        """As Agent.flush."""
        await asyncio.to_thread(self._core.flush)

    async def close(self) -> None:
        """As Agent.close."""
        await asyncio.to_thread(self._core.close)
        await self._client.close()

    async def __aenter__(self) -> AsyncAgent:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _write(call: Any, message: pb.ChatRequest) -> None:
    """Writes, unless the call is over: then reading says why."""
    try:
        await call.write(message)
    except (grpc.RpcError, asyncio.InvalidStateError):
        pass


class AsyncStream:
    """As Stream, with `async for` and `async with`."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events
        self.reply: Reply | None = None

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Event:
        event = await anext(self._events)
        if isinstance(event, SessionFinished):
            self.reply = event.reply
        return event

    @property
    def text(self) -> AsyncIterator[str]:
        """The text, as it comes."""
        return (event.text async for event in self if isinstance(event, TextDelta))

    async def close(self) -> None:
        """Cancels the session where it still runs. Repeatable."""
        await self._events.aclose()  # type: ignore[attr-defined]  # it is a generator

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
