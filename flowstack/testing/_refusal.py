"""What the fake refuses with: a gRPC code, a reason and a sentence, as the services do."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.rpc import error_details_pb2, status_pb2

from flowstack._status import DETAILS_KEY, DOMAIN


class Refusal(Exception):  # noqa: N818  # an answer, not a defect
    """Ends a call."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        metadata: Mapping[str, str] | None = None,
        field: str = "",
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.metadata, self.field = dict(metadata or {}), field

    def trailing(self) -> tuple[tuple[str, bytes], ...]:
        """The details, as metadata."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        status.details.add().Pack(info)
        if self.field:
            bad = error_details_pb2.BadRequest()
            bad.field_violations.add(field=self.field, description=self.message)
            status.details.add().Pack(bad)
        return ((DETAILS_KEY, status.SerializeToString()),)


def invalid(field: str, message: str) -> Refusal:
    """INVALID_REQUEST about a field."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", message, field=field)
