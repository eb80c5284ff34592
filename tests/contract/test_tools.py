"""A chat's tool rounds all belong to its one session."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator

import grpc
import pytest
from flowstack_protos.router.v1 import router_service_pb2 as router
from flowstack_protos.type.v1 import type_pb2 as types

from tests.contract.target import Customer, info_of, kinds, text_of
from tests.support.suite import completion

TOOLS = [{"name": "lookup", "input_schema_json": "{}"}]


class Conversation:
    """A chat whose client sends what it is told to."""

    def __init__(self, customer: Customer, **fields: object) -> None:
        self._sent: queue.SimpleQueue[router.ChatRequest | None] = queue.SimpleQueue()
        self.send(router.ChatRequest(start=completion("what is it", **fields)))
        self.events: list[router.CompletionEvent] = []
        self.stream = customer.chat(self._outgoing())

    def send(self, request: router.ChatRequest | None) -> None:
        """Sends a message; None half-closes."""
        self._sent.put(request)

    def answer(self, tool_call_id: str, content: str = "it is 4") -> None:
        """Sends a tool's result."""
        result = router.ToolResultPart(tool_call_id=tool_call_id, content=content)
        self.send(router.ChatRequest(tool_results=router.ToolResults(results=[result])))

    def read(self, last: str = "") -> router.CompletionEvent:
        """Reads to the next event of this kind; without one to the end."""
        for event in self.stream:
            self.events.append(event)
            if event.WhichOneof("event") == last:
                break
        return self.events[-1]

    def _outgoing(self) -> Iterator[router.ChatRequest]:
        while (request := self._sent.get()) is not None:
            yield request


def test_a_tool_round_is_part_of_the_session(free: Customer) -> None:
    chat = Conversation(free, tools=TOOLS, labels={"echo.tool": "lookup"})
    wanted = chat.read("tool_results_wanted").tool_results_wanted
    reserved = free.usage()
    chat.answer(wanted.tool_call_ids[0])
    finished = chat.read().session_finished
    chat.send(None)

    call = chat.events[1].tool_call
    assert (call.id, call.name, call.arguments_json) == (wanted.tool_call_ids[0], "lookup", '{"message":"what is it"}')
    assert kinds(chat.events)[:3] == ["session_started", "tool_call", "tool_results_wanted"]
    assert text_of(chat.events) == "what is it"
    assert (finished.finish_reason, finished.session_state) == (
        types.FINISH_REASON_STOP,
        types.SESSION_STATE_COMMITTED,
    )
    assert finished.outcome.tool_call_count == 1
    assert (reserved.sessions_reserved, reserved.sessions_used) == (1, 0)
    assert free.usage().sessions_used == 1


def test_a_chat_without_tools_ends_by_itself(free: Customer) -> None:
    chat = Conversation(free)
    finished = chat.read().session_finished
    chat.send(None)

    assert finished.finish_reason == types.FINISH_REASON_STOP
    assert free.usage().sessions_used == 1


def test_complete_ends_with_the_tool_call(free: Customer) -> None:
    events = list(free.complete(tools=TOOLS, labels={"echo.tool": "lookup"}))

    assert kinds(events) == ["session_started", "tool_call", "session_finished"]
    assert events[-1].session_finished.finish_reason == types.FINISH_REASON_TOOL_CALLS
    assert free.usage().sessions_used == 1


@pytest.mark.parametrize(
    "breaking",
    [
        lambda chat, _: chat.send(None),
        lambda chat, _: chat.answer("nobody asked"),
        lambda chat, _: chat.send(router.ChatRequest(start=completion())),
        lambda chat, _: chat.send(router.ChatRequest(tool_results=router.ToolResults())),
    ],
    ids=["half-close", "unknown id", "second start", "no results"],
)
def test_who_breaks_the_tool_loop_is_charged(free: Customer, breaking: Callable[[Conversation, str], None]) -> None:
    chat = Conversation(free, tools=TOOLS, labels={"echo.tool": "lookup"})
    wanted = chat.read("tool_results_wanted").tool_results_wanted
    breaking(chat, wanted.tool_call_ids[0])
    with pytest.raises(grpc.RpcError) as caught:
        chat.read()
    chat.send(None)

    info = info_of(caught.value)
    assert chat.stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info.reason == "INVALID_REQUEST"
    assert (info.metadata["session_state"], info.metadata["counted"]) == ("COMMITTED", "true")
    assert free.usage().sessions_used == 1


@pytest.mark.parametrize("first", ["nothing", "results"])
def test_a_chat_begins_with_its_start(free: Customer, first: str) -> None:
    results = router.ToolResults(results=[router.ToolResultPart(tool_call_id="a")])
    requests = [] if first == "nothing" else [router.ChatRequest(tool_results=results)]
    with pytest.raises(grpc.RpcError) as caught:
        list(free.chat(requests))

    assert info_of(caught.value).reason == "INVALID_REQUEST"
    assert free.usage().sessions_used == 0


def test_who_leaves_while_results_are_owed_is_charged(free: Customer) -> None:
    chat = Conversation(free, tools=TOOLS, labels={"echo.tool": "lookup"})
    chat.read("tool_results_wanted")
    chat.stream.cancel()
    chat.send(None)

    usage = free.usage_once(lambda found: found.sessions_reserved == 0)
    assert usage.sessions_used == 1
