"""Names to addresses, of which only those that are allowed are ever connected to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from weakref import WeakValueDictionary

from aiohttp.abc import AbstractResolver, ResolveResult

from services.billing.domain.targets import Network, is_allowed

LOOKUPS_AT_ONCE: Final = 64
"""Threads for names that are slow to resolve; the rest of the process has none to spare for them."""

LOOKUPS_AT_ONCE_OF_ACCOUNT: Final = 4
"""Of these of one account, those included that nobody waits for any more: a thread is free when the system's resolver
has answered or given up, and not before."""

LOOKUPS_AT_ONCE_OF_NAME: Final = 2
"""Of these of one name: where it hangs, the account's other names have the rest."""

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name, IP literals of any spelling included. Raises OSError where there are none."""


class UnresolvedError(Exception):
    """The name has no address."""


class RefusedError(Exception):
    """The name leads to an address that is not allowed."""


class SystemLookup:
    """The system's resolver, in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS_AT_ONCE, "webhook-names")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a name."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        )
        return [str(info[4][0]) for info in found]

    def close(self) -> None:
        """Lets the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class FairLookup:
    """A look-up of which every account has a few at a time: names that hang keep nobody else's waiting.

    Of these one name has but a part, so that it does not keep the account's other names waiting either.
    """

    def __init__(
        self,
        lookup: Lookup,
        at_once_of_account: int = LOOKUPS_AT_ONCE_OF_ACCOUNT,
        at_once_of_name: int = LOOKUPS_AT_ONCE_OF_NAME,
    ) -> None:
        self._lookup = lookup
        self._at_once_of_account = at_once_of_account
        self._at_once_of_name = at_once_of_name
        self._rooms: WeakValueDictionary[tuple[str, ...], asyncio.Semaphore] = WeakValueDictionary()
        """For accounts that look something up, or wait to, and for each name that they do."""
        self._running: set[asyncio.Future[Sequence[str]]] = set()

    async def __call__(self, account_id: str, host: str, port: int) -> Sequence[str]:
        """The addresses of a name, once the account has room. Raises OSError where there are none."""
        of_name = self._room(self._at_once_of_name, account_id, host.lower())
        of_account = self._room(self._at_once_of_account, account_id)
        await of_name.acquire()
        try:
            await of_account.acquire()
        except asyncio.CancelledError:
            of_name.release()
            raise
        looking = asyncio.ensure_future(self._lookup(host, port))
        self._running.add(looking)

        def ended(_: object) -> None:
            self._running.discard(looking)
            of_name.release()
            of_account.release()

        looking.add_done_callback(ended)
        # It goes on where its caller has given up, and takes up the room for as long.
        return await asyncio.shield(looking)

    def _room(self, size: int, *key: str) -> asyncio.Semaphore:
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = asyncio.Semaphore(size)
        return room


async def allowed_addresses(lookup: Lookup, host: str, port: int, operators: Sequence[Network]) -> Sequence[str]:
    """The addresses of a name, all of which are allowed.

    A name that leads to an allowed and a refused address is refused: which of them is connected to would be chance.

    Raises:
        UnresolvedError: there are none.
        RefusedError: one of them is not allowed.
    """
    try:
        addresses = list(dict.fromkeys(await lookup(host, port)))
    except (OSError, UnicodeError):
        raise UnresolvedError from None
    if not addresses:
        raise UnresolvedError
    if not all(is_allowed(address, operators) for address in addresses):
        raise RefusedError
    return addresses


class PinnedResolver(AbstractResolver):
    """Answers addresses that were checked, whatever is asked: nothing is resolved a second time."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002
    ) -> list[ResolveResult]:
        """The addresses that were checked."""
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Holds nothing."""


def guarded_socket(addresses: Sequence[str]) -> Callable[[Any], socket.socket]:
    """Makes sockets for connections to these addresses and to no other, by whatever way another may have come in.

    aiohttp asks no resolver about what looks like a literal; here everything comes by before it is connected to.
    """

    def make(info: Any) -> socket.socket:
        family, kind, proto, _, place = info
        if place[0] not in addresses:
            raise RefusedError
        made = socket.socket(family=family, type=kind, proto=proto)
        made.setblocking(False)
        return made

    return make
