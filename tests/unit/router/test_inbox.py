"""The client's messages of a chat, between the call and the session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from flowstack_protos.router.v1 import router_service_pb2 as pb

from services.router.inbox import Inbox
from services.shared.errors import FlowStackError, Reason

START = pb.ChatRequest(start=pb.CompleteRequest(request_id="r"))


def results(*ids: str) -> pb.ChatRequest:
    return pb.ChatRequest(tool_results=pb.ToolResults(results=[pb.ToolResultPart(tool_call_id=id_) for id_ in ids]))


class Client:
    """Sends what a test puts in; ends when told so."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[pb.ChatRequest | None] = asyncio.Queue()
        self.cancelled = False

    def send(self, *messages: pb.ChatRequest | None) -> None:
        for message in messages:
            self._messages.put_nowait(message)

    async def requests(self) -> AsyncIterator[pb.ChatRequest]:
        try:
            while (message := await self._messages.get()) is not None:
                yield message
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    async def read(self) -> None:
        """Waits until everything that was sent is with the inbox."""
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
async def inbox(client: Client) -> AsyncIterator[Inbox]:
    inbox = Inbox(client.requests(), first_s=30)
    yield inbox
    inbox.close()


async def test_the_first_message_then_the_results(client: Client, inbox: Inbox) -> None:
    client.send(START, results("a"), results("b"))

    assert (await inbox.first()).request_id == "r"
    for id_ in "ab":
        received = await inbox.receive()
        assert received is not None
        assert [result.tool_call_id for result in received] == [id_]


async def test_the_wait_for_the_first_message_leaves_the_stream_to_its_reader(client: Client) -> None:
    inbox = Inbox(client.requests(), first_s=0)
    with pytest.raises(FlowStackError) as caught:
        await inbox.first()
    await client.read()

    assert caught.value.reason is Reason.CALL_TIME_LIMIT
    assert not client.cancelled, "the read goes on until the call has ended"
    inbox.close()


async def test_a_refusal_ends_the_wait_and_a_later_one_changes_nothing(client: Client, inbox: Inbox) -> None:
    waiting = asyncio.create_task(inbox.first())
    await client.read()
    inbox.refuse(FlowStackError(Reason.SHUTTING_DOWN, "Now."))
    inbox.refuse(FlowStackError(Reason.INTERNAL, "Later."))
    with pytest.raises(FlowStackError) as caught:
        await waiting

    assert caught.value.reason is Reason.SHUTTING_DOWN
    client.send(START)
    await client.read()


async def test_what_was_sent_unasked_can_be_looked_at(client: Client, inbox: Inbox) -> None:
    client.send(START)
    await inbox.first()
    assert inbox.unasked() is None

    client.send(results("a", "b"), None)
    await client.read()
    unasked = inbox.unasked()
    assert unasked is not None
    assert [result.tool_call_id for result in unasked] == ["a", "b"]
    assert inbox.unasked() is None, "a half-close is nothing that was sent"


async def test_a_second_start_is_refused_when_it_is_looked_at(client: Client, inbox: Inbox) -> None:
    client.send(START, START)
    await inbox.first()
    await client.read()
    with pytest.raises(FlowStackError) as caught:
        inbox.unasked()

    assert caught.value.reason is Reason.INVALID_REQUEST
