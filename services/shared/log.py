"""Structured logs: one JSON object a line on stderr, with a closed list of fields."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import orjson
import structlog

ALLOWED_FIELDS: Final = frozenset(
    {
        "event",
        "level",
        "timestamp",
        "service",
        "method",
        "code",
        "reason",
        "duration_ms",
        "account_id",
        "api_key_id",
        "session_id",
        "session_state",
        "attempt",
        "provider",
        "model",
        "failure",
        "address",
        "port",
        "pid",
        "exit_code",
        "signal",
        "partition",
        "count",
        "error_type",
        "traceback",
        "path",
        "delay_s",
        "detail",
    }
)
"""Whatever is not in here is dropped: a new field is a decision, so that no key or content slips in."""

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


_GRPC: Final = "grpc._cython.cygrpc"
"""Who logs what became of a call in grpc.aio's server."""


def _is_no_client_that_left(record: logging.LogRecord) -> bool:
    """False for a write that failed because its client has gone, which gRPC logs as an error with its trace.

    It is told so where the write fails before the end of the call is known; the access log has the call's line.
    """
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "ExecuteBatchError"


def _allow_listed(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: value for key, value in event.items() if key in ALLOWED_FIELDS}


def configure(service: str, level: str = "info") -> None:
    """Sets up logging for this process."""

    def name_service(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    structlog.configure(
        processors=[
            name_service,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _allow_listed,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    # Libraries log request lines and headers at debug and info; only what went wrong is let through.
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    logging.getLogger(_GRPC).addFilter(_is_no_client_that_left)


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """The process's logger."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def frames_of(error: BaseException) -> str:
    """Where `error` came from, as `file:line` frames: never its text, which may hold what a user sent."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/services/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join(reversed(frames[-12:]))
