"""A host that runs the router: the shipped service, sessions, resolver and quota client, with simulated providers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from services.router.adapters.quota_client import QuotaClient
from services.router.catalog import Catalog, ProviderEntry
from services.router.domain.events import Finish, ProviderEvent, TextDelta
from services.router.domain.outcome import AttemptFailure, FinishReason, Outcome, ReleaseReason, Usage
from services.router.domain.outcome import SessionState as State
from services.router.domain.quota import Grant, Quota, Reservation, Resolution
from services.router.domain.request import Candidate, Prompt
from services.router.limits import SessionLimits
from services.router.lineup import Lineup
from services.router.providers.port import OnSent, ProviderError
from services.router.resolver import Resolver
from services.router.service import RouterService
from services.shared.channel import ServiceChannel
from tests.simulation.hosts import LEASE_S, METADATA, TIME_LIMIT_S, HostClock, Surroundings
from tests.simulation.oracle import COMMITTED, EXPIRED, RELEASED, RESERVED
from tests.support.linearizability import History
from tests.support.simulation_loop import Life
from tests.support.simulation_net import FakeChannel

STATES = {State.RESERVED: RESERVED, State.COMMITTED: COMMITTED, State.RELEASED: RELEASED, State.EXPIRED: EXPIRED}
PROVIDERS = ("openai", "backup")
FAILURES = (AttemptFailure.PROVIDER_ERROR, AttemptFailure.RATE_LIMITED, AttemptFailure.REQUEST_REJECTED)


class WitnessedQuota:
    """The router's way to quota, with the oracle told of what goes out and what comes back."""

    def __init__(self, around: Surroundings, life: Life, client: QuotaClient, history: History) -> None:
        self._around = around
        self._life = life
        self._lease_end_s: dict[str, float] = {}
        self._client = client
        self._history = history

    async def reserve(self, reservation: Reservation) -> Grant:
        """Holds one unit."""
        key = (reservation.account_id, reservation.session_id)
        self._lease_end_s[reservation.session_id] = self._around.loop.time() + reservation.lease_s
        async with self._history.recorded("reserve", *key) as answer:
            grant = await self._client.reserve(reservation)
            answer.result = "replayed" if grant.replayed else "ok"
        self._around.oracle.told(key, RESERVED, fresh=not grant.replayed)
        if not grant.replayed:
            self._around.oracle.granted[reservation.labels["tag"]] = key
        return grant

    async def commit(self, account_id: str, session_id: str, outcome: Outcome) -> Resolution:
        """Counts a session."""
        self._around.oracle.commits_begun.add((account_id, session_id))
        self._around.oracle.owed[account_id, session_id] = (self._life, self._lease_end_s[session_id])
        async with self._history.recorded("commit", account_id, session_id) as answer:
            resolution = await self._client.commit(account_id, session_id, outcome)
            answer.result = "ok"
        self._around.oracle.told((account_id, session_id), STATES[resolution.state])
        return resolution

    async def release(
        self, account_id: str, session_id: str, reason: ReleaseReason, outcome: Outcome | None
    ) -> Resolution:
        """Gives a unit back."""
        async with self._history.recorded("release", account_id, session_id) as answer:
            resolution = await self._client.release(account_id, session_id, reason, outcome)
            answer.result = "ok"
        self._around.oracle.told((account_id, session_id), STATES[resolution.state])
        return resolution

    async def get_quota(self, account_id: str) -> Quota:
        """Reads an account's quota."""
        return await self._client.get_quota(account_id)


class SimulatedProvider:
    """Answers, fails or takes its time, as the request's tag decides."""

    def __init__(self, around: Surroundings, name: str) -> None:
        self._around = around
        self._name = name

    def check(self, candidate: Candidate, prompt: Prompt, /) -> None:
        """Does everything that is asked."""

    @asynccontextmanager
    async def open(self, candidate: Candidate, prompt: Prompt, on_sent: OnSent, /) -> AsyncIterator[SimulatedStream]:
        """Calls the provider."""
        tag = prompt.labels["tag"]
        self._around.oracle.provider_called(tag)
        on_sent()
        draw = random.Random(f"{self._around.seed} {self._name} {tag}")
        await asyncio.sleep(draw.random() * 0.3)
        if draw.random() < 0.15:
            raise ProviderError(draw.choice(FAILURES))
        yield SimulatedStream(draw)

    async def aclose(self) -> None:
        """Holds nothing."""


class SimulatedStream:
    """One running call."""

    request_id = ""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._left = draw.randrange(4)
        self._pause_s = draw.choice((0.01, 0.1, 1.0, 5.0))

    async def read(self) -> Sequence[ProviderEvent]:
        """What comes next."""
        await asyncio.sleep(self._draw.random() * self._pause_s)
        if self._draw.random() < 0.03:
            raise ProviderError(AttemptFailure.TRUNCATED)
        if self._left == 0:
            return (Finish(FinishReason.STOP, "stop", Usage(1, 1)),)
        self._left -= 1
        return (TextDelta("word "),)

    def __aiter__(self) -> Any:
        raise AssertionError("read by read()")


class RouterHost:
    """Starts and kills a router."""

    def __init__(self, around: Surroundings, name: str, history: History, lease_s: float = LEASE_S) -> None:
        self.around = around
        self.name = name
        self.clock = HostClock(around.loop, around.start_us)
        self.life: Life | None = None
        self._lease_s = lease_s
        self._history = history
        self._service: RouterService | None = None
        self._random = random.Random(f"{name} {around.seed}")

    @property
    def up(self) -> bool:
        """Whether it runs."""
        return self.life is not None and self.life.alive

    @property
    def service(self) -> RouterService:
        """The use cases."""
        assert self._service is not None
        return self._service

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing is left to resolve."""
        return not self.up or not (self.service.running or self.service.resolver._tasks)

    def start(self) -> None:
        """Starts with nothing: it is stateless."""
        self.around.loop.note(f"{self.name} starts")
        self.life = Life(self.around.loop, self.name)
        self.life.run(self._boot, self.life)

    def _boot(self, life: Life) -> None:
        channel = FakeChannel(self.around.network, life, self.name)
        client = QuotaClient(ServiceChannel(channel, METADATA))  # type: ignore[arg-type]
        life.start(client.start())
        quota = WitnessedQuota(self.around, life, client, self._history)
        entries = {name: ProviderEntry(name, "openai", any_model=True) for name in PROVIDERS}
        providers = {name: SimulatedProvider(self.around, name) for name in PROVIDERS}
        self._service = RouterService(
            quota=quota,
            lineup=Lineup(Catalog(entries), providers, frozenset(PROVIDERS)),
            clock=self.clock,
            limits=SessionLimits(time_limit_s=min(TIME_LIMIT_S, self._lease_s), lease_s=self._lease_s),
            resolver=Resolver(quota, self.clock),
            random_bits=self._random.getrandbits,
        )

    def kill(self) -> None:
        """Kills the process."""
        assert self.life is not None
        self.life.kill()
