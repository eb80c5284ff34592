"""Comparisons of the ledger with quota."""

from __future__ import annotations

from flowstack_protos.billing.v1 import usage_service_pb2 as pb

from services.billing.domain.reconciliation import Drift
from services.billing.service.reconciliation import Reconciliation
from services.shared.times import optional_time_to_proto


def reconciliation_to_proto(found: Reconciliation) -> pb.ReconcileUsageResponse:
    """Domain to ReconcileUsageResponse."""
    return pb.ReconcileUsageResponse(
        drifts=[_drift_to_proto(drift) for drift in found.drifts],
        accounts_compared=found.accounts_compared,
        as_of_time=optional_time_to_proto(found.as_of_us),
        next_page_token=found.next_token,
    )


def _drift_to_proto(drift: Drift) -> pb.UsageDrift:
    return pb.UsageDrift(
        account_id=drift.account_id,
        kind=int(drift.kind),  # type: ignore[arg-type]  # the numbers are the contract's
        period_start_time=optional_time_to_proto(drift.period_start_us),
        ledger_value=drift.ledger_value,
        compared_value=drift.compared_value,
        session_id=drift.session_id,
        message=drift.message,
    )
