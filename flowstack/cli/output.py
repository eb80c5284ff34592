"""Answers as a person reads them, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
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
        console: standard output.
        errors: standard error.
    """

    def __init__(self, as_json: bool = False, console: Console | None = None, errors: Console | None = None) -> None:
        self.as_json = as_json
        self.console = console or Console(highlight=False)
        self.errors = errors or Console(stderr=True, highlight=False)

    def json(self, value: Any) -> None:
        """Prints JSON, on one line where it is not read by a person."""
        indent = 2 if self.console.is_terminal else None
        self.console.file.write(json.dumps(plain(value), indent=indent, ensure_ascii=False) + "\n")
        self.console.file.flush()

    def say(self, text: str, value: Any = None) -> None:
        """Prints a sentence, or `value` as JSON where that is wanted."""
        if self.as_json:
            self.json(value)
        else:
            self.console.print(Text(text))

    def fields(self, pairs: Iterable[tuple[str, str]], value: Any) -> None:
        """Prints names and what they are, those without a value left out; or `value` as JSON."""
        if self.as_json:
            self.json(value)
            return
        grid = Table.grid(padding=(0, 2))
        for name, shown in pairs:
            if shown:
                grid.add_row(Text(name, style="dim"), Text(shown))
        self.console.print(grid)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], values: Any, empty: str) -> None:
        """Prints a table, or `values` as JSON. A column whose name begins with `#` holds numbers.

        Args:
            columns: the heads.
            rows: what stands in them.
            values: the same for machines.
            empty: the sentence where there are no rows.
        """
        if self.as_json:
            self.json(values)
            return
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in columns:
            table.add_column(column.removeprefix("#"), justify="right" if column.startswith("#") else "left")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(table if table.row_count else Text(empty))

    def error(self, message: str, error: FlowStackError | None = None) -> None:
        """Prints what went wrong, on standard error."""
        if not self.as_json:
            self.errors.print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)
            return
        body: dict[str, Any] = {"message": message}
        if error is not None:
            details = {name: str(value) for name, value in error.details.items()}
            body |= {"code": error.code, "reason": error.reason, "details": details}
            body["violations"] = [{"field": field, "rule": rule} for field, rule in error.violations]
        self.errors.file.write(json.dumps({"error": body}, ensure_ascii=False) + "\n")
