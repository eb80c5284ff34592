"""A FlowStack for tests: real gRPC on a port of its own, within the test's process, without services or providers.

    from flowstack.testing import FakeFlowStack

    with FakeFlowStack() as fake:
        agent = fake.agent("bot")
        fake.reply("The answer is 4.")
        assert agent.chat("What is 2 + 2?") == "The answer is 4."
        fake.advance(days=31)          # a new period has begun

It keeps the real services' rules: sessions are counted and refused exactly, also from many threads; cancellation, tool
rounds, retries by request_id, plan changes, contracts, invoices, the audit log, keys, budgets and documents behave as
they do there, and errors have the same reasons and metadata. It serves every public method. What services call among
themselves it does not have: QuotaService, and AuthenticateApiKey, which refuses every caller as billing's public port
does. No webhook is ever called, no invoice sent, and invoices are drawn plainly. What models
cost is unknown unless `prices` says so, and so is what an answer that was cut off costs; the simulator `echo` is free.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

from flowstack_protos.billing.v1 import subscription_service_pb2
from flowstack_protos.router.v1 import router_service_pb2
from flowstack_protos.type.v1 import type_pb2

from flowstack.testing._errors import FakeError
from flowstack.testing._plans import PLANS
from flowstack.testing._prices import Prices, PriceTable
from flowstack.testing._replies import Reply, ToolRequest
from flowstack.testing._server import Server
from flowstack.testing._session import Limits
from flowstack.testing._time import datetime_of
from flowstack.testing._world import World

if TYPE_CHECKING:
    from flowstack import Agent, AsyncAgent

__all__ = ["FakeFlowStack"]

Failure = Literal[
    "unreachable",
    "provider_error",
    "rate_limited",
    "credentials_refused",
    "request_rejected",
    "truncated",
    "malformed",
    "stalled",
]

_FAILURES = frozenset(f"ATTEMPT_FAILURE_{name.upper()}" for name in get_args(Failure))


class FakeFlowStack:
    """The fake. It serves from the time that it is made until `close`, or to the end of its `with` block.

    Args:
        plan: Of the account that it begins with, whose key is `api_key`.
        tool_results_timeout_s: How long, in real seconds, a session waits for the results of its tools.
        session_time_limit_s: How long, in real seconds, a session may take.
        invoices_are_paid: Whether accounts pay their invoices by themselves on the day that they are due. Otherwise it
            is for MarkInvoicePaid, and 28 days after an invoice new sessions are refused with PAYMENT_OVERDUE.
        prices: What models cost on keys of one's own, dollars for a million input tokens and for a million output
            tokens, by provider and model: `{("openai", "gpt-4o"): (2.50, 10)}`. Usage, estimates, budgets and advice
            count with it. What is not in it is unknown, and counted as unpriced, as with the services.

    Raises:
        ValueError: there is no such plan, or it is sold by contract; or `prices` is malformed.
    """

    def __init__(
        self,
        plan: str = "starter",
        *,
        tool_results_timeout_s: float = 60.0,
        session_time_limit_s: float = 300.0,
        invoices_are_paid: bool = True,
        prices: PriceTable | None = None,
    ) -> None:
        self._world = World(Prices(prices or {}), invoices_are_paid=invoices_are_paid)
        self._api_key = self.new_account(plan)
        self._server = Server(self._world, Limits(session_time_limit_s, tool_results_timeout_s))
        self._closed = False

    @property
    def endpoint(self) -> str:
        """Host and port, for `Agent(endpoint=…)`, FLOWSTACK_ENDPOINT and gRPC channels. All services answer there."""
        return f"127.0.0.1:{self._server.port}"

    @property
    def api_key(self) -> str:
        """A key of the account that the fake began with."""
        return self._api_key

    def agent(self, name: str = "test-agent", **options: Any) -> Agent:
        """An agent of the account that the fake began with; `options` are Agent's."""
        from flowstack import Agent  # the SDK does not need its fake, nor the fake the SDK

        return Agent(name, self._api_key, endpoint=self.endpoint, **options)

    def async_agent(self, name: str = "test-agent", **options: Any) -> AsyncAgent:
        """The same for asyncio; `options` are AsyncAgent's."""
        from flowstack import AsyncAgent  # as above

        return AsyncAgent(name, self._api_key, endpoint=self.endpoint, **options)

    @property
    def admin_token(self) -> str:
        """What an operator sends in an API key's place."""
        return self._world.admin_token

    def new_account(self, plan: str = "free") -> str:
        """Opens an account.

        Args:
            plan: The id of a plan that is sold without a contract, such as `starter`.

        Returns:
            An API key of the account.

        Raises:
            ValueError: there is no such plan, or it is sold by contract.
        """
        try:
            return self._world.new_account(plan)[1]
        except FakeError as error:
            sold = ", ".join(name for name, one in PLANS.items() if one.price_micro is not None)
            raise ValueError(f"No account can be opened on the plan {plan!r}. There are {sold}.") from error

    def change_plan(self, plan: str, api_key: str = "") -> None:
        """Changes an account's plan, as its owner does: to a higher price at once, to a lower one with the next period.

        Args:
            plan: The id of a plan that is sold without a contract.
            api_key: Of the account; empty for the one that the fake began with.

        Raises:
            FlowStackError: What the service answers, such as NotFoundError where there is no such plan.
        """
        from flowstack._client import Client  # as above
        from flowstack._connection import connection_from
        from flowstack._methods import SubscriptionService

        with Client(connection_from(api_key or self._api_key, {}, self.endpoint)) as client:
            client.call(SubscriptionService.ChangePlan, subscription_service_pb2.ChangePlanRequest(plan_id=plan))

    def account_id(self, api_key: str) -> str:
        """The account that an API key of this fake belongs to.

        Raises:
            KeyError: the key is not of this fake.
        """
        key = self._world.keys.get(api_key)
        if key is None:
            raise KeyError("No account of this fake has that API key. Take one that this fake's new_account gave.")
        return key.account_id

    def reply(self, *texts: str, delay_s: float = 0.0) -> None:
        """Says what the model answers to the next calls of it, in order, whatever they ask.

        Args:
            texts: The answers, each sent word by word.
            delay_s: Real seconds before each word.

        Raises:
            TypeError: an answer is no text.
            ValueError: the delay is negative.
        """
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"An answer has to be a str, and is {type(text).__name__}: {text!r}.")
        for text in texts:
            self._script(Reply(text=text, delay_s=delay_s))

    def be_unavailable(self, times: int = 1, *, after_start: bool = False) -> None:
        """Has the router fail at the next completions and chats, so that it is seen how they are tried again.

        Args:
            times: At how many.
            after_start: Whether it breaks off after the session has begun, which is then released, rather than before.

        Raises:
            ValueError: `times` is below 1.
        """
        if times < 1:
            raise ValueError(f"times has to be 1 or more, and is {times}.")
        with self._world.lock:
            self._world.outages.extend([after_start] * times)

    def reply_with_tool_call(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, text: str = "", delay_s: float = 0.0
    ) -> None:
        """Has the model call a tool at the next call of it; what it says to the result is the reply after this one.

        Args:
            name: The tool's name.
            arguments: What it is called with; has to be fit for JSON.
            text: What the model says before.
            delay_s: Real seconds before each word and the call.
        """
        self.reply_with_tool_calls([(name, arguments or {})], text=text, delay_s=delay_s)

    def reply_with_tool_calls(
        self, calls: list[tuple[str, Mapping[str, Any]]], *, text: str = "", delay_s: float = 0.0
    ) -> None:
        """Has the model call several tools in one round; see `reply_with_tool_call`."""
        tools = tuple(ToolRequest(name, json.dumps(dict(arguments))) for name, arguments in calls)
        self._script(Reply(text=text, tools=tools, delay_s=delay_s))

    def fail(self, failure: Failure = "provider_error", *, after: str = "", message: str = "") -> None:
        """Has the provider fail at the next call of it.

        Args:
            failure: How.
            after: What it says before it fails.
            message: What it says of its failure.

        Raises:
            ValueError: there is no such failure.
        """
        name = f"ATTEMPT_FAILURE_{failure.upper()}"
        if name not in _FAILURES:
            raise ValueError(f"{failure!r} is no failure of a provider. There are {', '.join(get_args(Failure))}.")
        words = len(after.split(" ")) if after else 0
        self._script(Reply(after, (), type_pb2.AttemptFailure.Value(name), words, message))

    def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> datetime:
        """Moves the fake's clock ahead, so that periods, keys and documents come to their end. Nothing waits for it.

        Returns:
            The fake's time, in UTC.

        Raises:
            ValueError: the duration is negative.
        """
        with self._world.lock:
            self._world.clock.advance(timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds))
            self._world.changed.notify_all()
            return self.now

    @property
    def now(self) -> datetime:
        """The fake's time, in UTC."""
        return datetime_of(self._world.clock.now_us()).astimezone(UTC)

    @property
    def replies_left(self) -> int:
        """How many scripted replies no call has taken yet."""
        with self._world.lock:
            return len(self._world.replies)

    @property
    def requests(self) -> list[router_service_pb2.CompleteRequest]:
        """What was asked of the router, in order, also what it refused; without credentials."""
        with self._world.lock:
            return list(self._world.requests)

    def close(self) -> None:
        """Ends what runs, uncounted, and gives the port back. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._server.stop()

    def __enter__(self) -> FakeFlowStack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _script(self, reply: Reply) -> None:
        if reply.delay_s < 0:
            raise ValueError(f"delay_s has to be 0 or more, and is {reply.delay_s:g}.")
        with self._world.lock:
            self._world.replies.append(reply)
