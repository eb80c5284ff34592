"""The tool loop of a Chat: which results are owed, and the client's messages that bring them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from flowstack_protos.router.v1 import router_service_pb2 as pb

from flowstack.testing._errors import invalid_field
from flowstack.testing._rules import check

RESULTS_BYTES_MAX: Final = 8 * 1024 * 1024


class ToolLoopError(Exception):
    """The client broke the tool loop. The text is a sentence for it."""


class ToolLoop:
    """Collects the results of each round. Pure."""

    def __init__(self, rounds_max: int) -> None:
        self._rounds_left = rounds_max
        self._bytes_left = RESULTS_BYTES_MAX
        self._wanted: dict[str, pb.ToolResultPart | None] = {}

    def ask(self, calls: Sequence[pb.ToolCall]) -> tuple[str, ...]:
        """Begins a round: the ids whose results are owed; none where there are no calls or no rounds left."""
        if not calls or self._rounds_left <= 0:
            return ()
        self._rounds_left -= 1
        self._wanted = {call.id: None for call in calls}
        return tuple(self._wanted)

    @property
    def complete(self) -> bool:
        """True once every result of the round is there."""
        return all(result is not None for result in self._wanted.values())

    def add(self, results: Sequence[pb.ToolResultPart] | None) -> None:
        """Takes results in, in any order; None when the client has half-closed.

        Raises:
            ToolLoopError: an id that is not owed or was answered already, too much text, or the half-close.
        """
        if results is None:
            raise ToolLoopError("The client half-closed the call while tool results were owed.")
        for result in results:
            if result.tool_call_id not in self._wanted:
                raise ToolLoopError("A tool result has an id that was not asked for in this round.")
            if self._wanted[result.tool_call_id] is not None:
                raise ToolLoopError("A tool call was answered twice.")
            self._bytes_left -= len(result.content.encode())
            if self._bytes_left < 0:
                raise ToolLoopError(f"The tool results of the session are over {RESULTS_BYTES_MAX} bytes.")
            self._wanted[result.tool_call_id] = result

    def messages(self, text: str, calls: Sequence[pb.ToolCall]) -> tuple[pb.Message, pb.Message]:
        """The round as two messages of the conversation."""
        said = [pb.ContentPart(text=text)] if text else []
        said += [
            pb.ContentPart(tool_call=pb.ToolCallPart(id=c.id, name=c.name, arguments_json=c.arguments_json))
            for c in calls
        ]
        results = [pb.ContentPart(tool_result=result) for result in self._wanted.values() if result is not None]
        return (
            pb.Message(role=pb.MESSAGE_ROLE_ASSISTANT, content=said),
            pb.Message(role=pb.MESSAGE_ROLE_TOOL, content=results),
        )


class Inbox:
    """What a Chat's client sends, read by a thread so that one may wait for it with a time limit."""

    def __init__(self, requests: Iterator[pb.ChatRequest]) -> None:
        self._requests = requests
        self._queue: queue.SimpleQueue[pb.ChatRequest | None] = queue.SimpleQueue()
        self._half_closed = False
        threading.Thread(target=self._read, name="fake-flowstack-inbox", daemon=True).start()

    def first(self, timeout_s: float) -> pb.CompleteRequest:
        """The message that begins the session.

        Raises:
            FakeError: INVALID_REQUEST: another message, or none.
        """
        try:
            message = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            raise invalid_field("start", f"has to be sent within {timeout_s:g} s") from None
        if message is None:
            raise invalid_field("start", "has to be sent before the half-close")
        check(message)
        if message.WhichOneof("message") != "start":
            raise invalid_field("start", "has to be the first message")
        return message.start

    def next(self, timeout_s: float) -> Sequence[pb.ToolResultPart] | None:
        """The next tool results; None when the client has half-closed.

        Raises:
            queue.Empty: none came in time.
            FakeError: INVALID_REQUEST: the message is none of tool results, or an invalid one.
        """
        if self._half_closed:
            return None
        message = self._queue.get(timeout=timeout_s)
        if message is None:
            self._half_closed = True
            return None
        check(message)
        if message.WhichOneof("message") != "tool_results":
            raise invalid_field("start", "may be sent once, as the first message")
        return message.tool_results.results

    def has_more(self) -> bool:
        """Whether results have come that nobody asked for."""
        try:
            return self._queue.get_nowait() is not None
        except queue.Empty:
            return False

    def close(self) -> None:
        """Wakes whoever waits for a message."""
        self._queue.put(None)

    def _read(self) -> None:
        try:
            for request in self._requests:
                self._queue.put(request)
        except Exception:  # noqa: S110  # gRPC raises bare errors where the call has ended, and that is all they say
            pass
        self._queue.put(None)
