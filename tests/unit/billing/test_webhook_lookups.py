"""Names that do not resolve: what hangs of one account keeps no other account's webhooks waiting."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest

from services.billing.adapters.webhooks.addresses import (
    LOOKUPS_AT_ONCE_OF_ACCOUNT,
    LOOKUPS_AT_ONCE_OF_NAME,
    FairLookup,
    SystemLookup,
)
from services.billing.adapters.webhooks.sender import GuardedSender
from services.billing.domain.targets import networks_of
from services.billing.domain.webhooks import DeliveryFailure, WebhookFormat
from services.shared.secret import Secret
from tests.support.receiver import Receiver

MANY: Final = 100
"""More than there are threads."""


class Tarpit:
    """Names under tarpit.example that resolve once they are let; every other one leads to this machine at once."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.asked = 0
        self._system = socket.getaddrinfo

    def getaddrinfo(self, host: str, port: int, **options: Any) -> Any:
        if "tarpit" in host:
            self.asked += 1
            self.let.wait()
        return self._system("127.0.0.1", port, **options)


@pytest.fixture
def tarpit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tarpit]:
    made = Tarpit()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.let.set()


@pytest.fixture
def sender(tarpit: Tarpit) -> Iterator[GuardedSender]:
    lookups = SystemLookup(), SystemLookup()
    yield GuardedSender(lookups[0], networks_of("127.0.0.0/8"), creation_lookup=lookups[1], allow_http=True)
    tarpit.let.set()
    for lookup in lookups:
        lookup.close()


async def post(sender: GuardedSender, account_id: str, url: str) -> DeliveryFailure:
    return (await sender.post(account_id, Secret(url), {}, "{}")).failure


async def test_names_that_hang_keep_no_other_accounts_waiting(sender: GuardedSender, tarpit: Tarpit) -> None:
    async with Receiver() as receiver:
        hanging = [
            asyncio.ensure_future(coroutine)
            for number in range(MANY)
            for coroutine in (
                sender.check("acct_1", f"http://{number}.tarpit.example/", WebhookFormat.STANDARD),
                post(sender, "acct_1", f"http://{number}.tarpit.example/"),
            )
        ]
        url = receiver.url(host="good.example")
        assert await post(sender, "acct_2", url) is DeliveryFailure.NONE
        assert await sender.check("acct_2", url, WebhookFormat.STANDARD) == url
        # So many for deliveries, and as many for creations.
        while tarpit.asked < 2 * LOOKUPS_AT_ONCE_OF_ACCOUNT:
            await asyncio.sleep(0)
        assert tarpit.asked == 2 * LOOKUPS_AT_ONCE_OF_ACCOUNT
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_a_name_that_hangs_keeps_no_other_of_its_account_waiting(sender: GuardedSender, tarpit: Tarpit) -> None:
    async with Receiver() as receiver:
        hanging = [
            asyncio.ensure_future(post(sender, "acct_1", f"http://{name}/")) for name in ("a.tarpit", "A.tarpit") * MANY
        ]
        while tarpit.asked < LOOKUPS_AT_ONCE_OF_NAME:
            await asyncio.sleep(0)
        assert await post(sender, "acct_1", receiver.url(host="good.example")) is DeliveryFailure.NONE
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        # Those that nobody waits for any more take up their room, and no more than that.
        assert await post(sender, "acct_1", receiver.url(host="good.example")) is DeliveryFailure.NONE
        assert tarpit.asked == LOOKUPS_AT_ONCE_OF_NAME


async def test_webhooks_that_are_created_keep_no_deliveries_waiting(sender: GuardedSender) -> None:
    async with Receiver() as receiver:
        creating = [
            asyncio.ensure_future(sender.check("acct_1", "http://tarpit.example/", WebhookFormat.STANDARD))
            for _ in range(MANY)
        ]
        assert await post(sender, "acct_1", receiver.url(host="good.example")) is DeliveryFailure.NONE
        for task in creating:
            task.cancel()
        await asyncio.gather(*creating, return_exceptions=True)


async def test_a_look_up_that_nobody_waits_for_still_takes_its_room(tarpit: Tarpit) -> None:
    system = SystemLookup()
    lookup = FairLookup(system, 1)
    given_up = asyncio.ensure_future(lookup("acct_1", "tarpit.example", 80))
    while not tarpit.asked:
        await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    next_one = asyncio.ensure_future(lookup("acct_1", "good.example", 80))
    assert await lookup("acct_2", "good.example", 80) == ["127.0.0.1"]
    assert not next_one.done()
    tarpit.let.set()
    assert await next_one == ["127.0.0.1"]
    system.close()
