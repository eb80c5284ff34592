"""Turns what gRPC raises into the SDK's errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from flowstack._endpoints import AUTHORITY_SETTING
from flowstack._errors import (
    ConnectionFailedError,
    FlowStackError,
    TimeLimitError,
    UntrustedServerError,
    error_class,
    typed_details,
)

if TYPE_CHECKING:
    import grpc

    from flowstack._endpoints import Endpoint

DETAILS_KEY: Final = "grpc-status-details-bin"
DOMAIN: Final = "flowstack"


def error_from_rpc(error: grpc.RpcError, endpoint: Endpoint, *, answered: bool = False) -> FlowStackError:
    """The SDK's error for a failed call.

    Args:
        error: what a sync or aio call raised; it has code(), details() and trailing_metadata().
        endpoint: where the call went, for the text of a failed connection.
        answered: some of the answer had come.
    """
    call: Any = error
    code = call.code().name
    packed = next((value for key, value in call.trailing_metadata() or () if key == DETAILS_KEY), None)
    if packed is None:
        return _bare(code, call.details() or "", endpoint, answered)
    try:
        return _told(code, packed)
    except DecodeError:  # written by something else on the way
        return _bare(code, call.details() or "", endpoint, answered)


def _told(code: str, packed: bytes) -> FlowStackError:
    """What a service said of its failure."""
    status = status_pb2.Status()
    status.ParseFromString(packed)
    info = error_details_pb2.ErrorInfo()
    violations: list[tuple[str, str]] = []
    retry_after_s: float | None = None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad_request = error_details_pb2.BadRequest()
            detail.Unpack(bad_request)
            violations = [(v.field, v.description) for v in bad_request.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    reason = info.reason if info.domain == DOMAIN else ""
    return error_class(code, reason)(
        _with_violations(status.message, violations),
        code=code,
        reason=reason,
        details=typed_details(info.metadata),
        violations=violations,
        retry_after_s=retry_after_s,
    )


def _with_violations(message: str, violations: list[tuple[str, str]]) -> str:
    named = "; ".join(f"{field}: {rule}" for field, rule in violations if field not in message)
    return f"{message} ({named})" if named else message


_TLS_FAILURES: Final = (
    ("certificate has expired", "its certificate has expired", "Have it renewed"),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is signed by nobody who is trusted here",
        f"Set {AUTHORITY_SETTING} to the file with its authority's certificate, if that is to be trusted",
    ),
    (
        "Hostname Verification Check failed",
        "its certificate is for another name",
        "Address it in {setting} by a name that stands in the certificate",
    ),
    (
        "WRONG_VERSION_NUMBER",
        "it does not speak TLS there",
        "Correct {setting}: another port, or http:// if it is to be plaintext",
    ),
)
"""What gRPC says of a failed handshake, what that means, and what to do."""


def _bare(code: str, text: str, endpoint: Endpoint, answered: bool) -> FlowStackError:
    """A status that no FlowStack service wrote: the transport's, or a proxy's."""
    if code == "UNAVAILABLE":
        return _not_connected(code, text, endpoint, answered)
    if code == "DEADLINE_EXCEEDED":
        how = (
            "was not done with its answer in time. Give it more, as in timeout_s=."
            if answered
            else "did not answer in time. Try again."
        )
        return TimeLimitError(
            f"FlowStack's {endpoint.service} service at {endpoint.address} {how}",
            code=code,
            details={"service": endpoint.service, "address": endpoint.address},
        )
    return error_class(code, "")(
        f"FlowStack's {endpoint.service} service at {endpoint.address} answered {code}: {text}", code=code
    )


_NEVER_CONNECTED: Final = re.compile(r"failed to connect|resolution fail", re.IGNORECASE)
"""What gRPC says where nothing was sent."""

_MAY_BE_TLS: Final = re.compile(
    r"socket closed|reset by peer|broken pipe|parsing HTTP/2|receiving SETTINGS|endpoint closing", re.IGNORECASE
)
"""What it says, there, of a server that took the connection and then did not speak gRPC, or nothing at all."""
_LAST_OF_SEVERAL: Final = re.compile(r"ipv6:.*connection refused", re.IGNORECASE)
"""What it says of a name where nothing listens at the IPv6 address, whatever there is at the others."""


def _not_connected(code: str, text: str, endpoint: Endpoint, answered: bool) -> FlowStackError:
    """Says why there is no connection, and what to try."""
    connected = answered or not _NEVER_CONNECTED.search(text)
    details: dict[str, Any] = {"service": endpoint.service, "address": endpoint.address}
    for said, cause, remedy in _TLS_FAILURES if endpoint.tls else ():
        if said in text:
            return UntrustedServerError(
                f"FlowStack's {endpoint.service} service at {endpoint.address} was not called: {cause}. "
                f"{remedy.format(setting=endpoint.setting)}. Nothing was sent to it.",
                code=code,
                details=details,
            )
    if connected:
        details["connected"] = True
        return ConnectionFailedError(
            f"The connection to FlowStack's {endpoint.service} service at {endpoint.address} broke off "
            f"{'in the middle of its answer' if answered else 'before it answered'}. What was asked of it may have "
            "been done all the same: look before you ask again.",
            code=code,
            details=details,
        )
    return ConnectionFailedError(
        f"FlowStack's {endpoint.service} service cannot be reached at {endpoint.address}. Check that it runs "
        f"(`flowstack doctor`, or `make run` on your own machine) and that {endpoint.setting} names it."
        f"{_other_scheme(text, endpoint)}",
        code=code,
        details=details,
    )


def _other_scheme(text: str, endpoint: Endpoint) -> str:
    """What to try where the service may be there, but over TLS or without; empty where it is not.

    From here a server that wants TLS looks like any that hangs up, so that it is no more than a condition.
    """
    is_name = not endpoint.target.startswith("[")
    may_be_there = _MAY_BE_TLS.search(text) or (is_name and _LAST_OF_SEVERAL.search(text))
    if not may_be_there or endpoint.target.startswith("unix:"):
        return ""
    what, scheme = ("takes no TLS", "http") if endpoint.tls else ("takes TLS only", "https")
    return f" If what listens there {what}, write {scheme}://{endpoint.target}."
