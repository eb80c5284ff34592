"""Answers as a person reads them, or as JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from flowstack._errors import (
    AlreadyExistsError,
    AuthenticationError,
    CallCancelledError,
    ConfigurationError,
    ConflictError,
    FlowStackError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    TimeLimitError,
    UnavailableError,
)
from flowstack.cli.wording import in_commands

EXIT_CODES: Final[Sequence[tuple[type[FlowStackError], int]]] = (
    (ConfigurationError, 2),
    (InvalidRequestError, 2),
    (AuthenticationError, 3),
    (PermissionDeniedError, 3),
    (NotFoundError, 4),
    (LimitExceededError, 5),
    (PreconditionError, 6),
    (ConflictError, 6),
    (AlreadyExistsError, 6),
    (UnavailableError, 7),
    (TimeLimitError, 8),
    (CallCancelledError, 130),
)
"""The exit code of each kind of error; 1 for any other."""

COLUMNS_WITHOUT_TERMINAL: Final = 100_000
"""Wider than any line."""
FOLDED_COLUMNS: Final = 10
"""How narrow a column of text becomes at most, before the table outgrows the terminal."""


def exit_code_of(error: FlowStackError) -> int:
    """What the process ends with after an error."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def plain(value: Any) -> Any:
    """A message, or a structure of messages, as JSON's types; names as in the contracts."""
    if isinstance(value, Message):
        return MessageToDict(value, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


class Output:
    """Where answers go.

    Args:
        as_json: machine-readable JSON on standard output, one document for each answer, in place of text.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        # Whatever reads a pipe or a file gets whole lines; a terminal's width is for people.
        width = None if sys.stdout is not None and sys.stdout.isatty() else COLUMNS_WITHOUT_TERMINAL
        self._console = Console(highlight=False, width=width)
        self._errors = Console(stderr=True, highlight=False)

    def print(self, shown: RenderableType = "") -> None:
        """Prints what rich can draw; an empty line where nothing is given.

        Raises:
            OutputClosedError: the reader has gone.
            ConfigurationError: standard output cannot be written.
        """
        self._console.print(shown, crop=False)

    def write(self, text: str) -> None:
        """Writes text as it is, neither wrapped nor styled, at once.

        Raises:
            OutputClosedError: the reader has gone.
            ConfigurationError: standard output cannot be written.
        """
        self._console.file.write(text)
        self._console.file.flush()

    def json(self, value: Any) -> None:
        """Prints JSON, on one line where it is not read by a person."""
        self.write(self._json_text(value, indent=2 if self._console.is_terminal else None))

    def say(self, text: str, value: Any = None) -> None:
        """Prints a sentence, or `value` as JSON where that is wanted."""
        if self.as_json:
            self.json(value)
        else:
            self.write(f"{text}\n")

    def fields(self, pairs: Iterable[tuple[str, str]], value: Any) -> None:
        """Prints names and what they are, those without a value left out; or `value` as JSON."""
        if self.as_json:
            self.json(value)
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, shown in pairs:
            if shown:
                grid.add_row(Text(name, style="dim"), Text(shown))
        self.print(grid)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], values: Any, empty: str) -> None:
        """Prints a table, or `values` as JSON. On a narrow terminal text is folded, ids and numbers never.

        Args:
            columns: the heads; that of a column of numbers begins with `#`, of ids and what else is copied with `@`.
            rows: what stands in them.
            values: the same for machines.
            empty: the sentence where there are no rows.
        """
        if self.as_json:
            self.json(values)
            return
        cells = [list(row) for row in rows]
        if not cells:
            self.say(empty)
            return
        table = Table(box=None, pad_edge=False, header_style="dim")
        least = 2 * (len(columns) - 1)
        for number, column in enumerate(columns):
            whole, head = column.startswith(("#", "@")), column.lstrip("#@")
            width = max(cell_len(head), *(cell_len(row[number]) for row in cells))
            least += width if whole else min(width, FOLDED_COLUMNS)
            justify: Any = "right" if column.startswith("#") else "left"
            table.add_column(head, justify=justify, no_wrap=whole, overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        if least > self._console.width:
            table.width = least  # the terminal wraps the lines by itself, and loses nothing
        self.print(table)

    def note(self, text: str, *, end: str = "\n") -> None:
        """Says something beside the answer, on standard error."""
        with contextlib.suppress(OSError):
            self._errors.print(Text(text, style="dim"), end=end, soft_wrap=True)

    def error(self, message: str, error: FlowStackError | None = None) -> None:
        """Prints what went wrong, on standard error."""
        message = in_commands(message)
        with contextlib.suppress(OSError):  # there is nowhere left to say so
            if not self.as_json:
                self._errors.print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)
                return
            body: dict[str, Any] = {"message": message}
            if error is not None:
                details = {name: str(value) for name, value in error.details.items()}
                body |= {"code": error.code, "reason": error.reason, "details": details}
                body["violations"] = [{"field": field, "rule": in_commands(rule)} for field, rule in error.violations]
            self._errors.file.write(self._json_text({"error": body}))
            self._errors.file.flush()

    def _json_text(self, value: Any, indent: int | None = None) -> str:
        # Only UTF-8 holds every character; elsewhere they are escaped as JSON does it.
        encoding = str(getattr(self._console.file, "encoding", None) or "utf-8").lower().replace("-", "")
        return json.dumps(plain(value), indent=indent, ensure_ascii=encoding != "utf8") + "\n"
