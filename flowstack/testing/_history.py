"""What an account used, by UsageService of the fake: its sessions one by one, their sums, and their comparison."""

from __future__ import annotations

from flowstack_protos.billing.v1 import usage_service_pb2 as pb

from flowstack.testing._audit import NOTHING, action_of
from flowstack.testing._calls import Call, page_of
from flowstack.testing._errors import FakeError
from flowstack.testing._plans import money
from flowstack.testing._prices import VERSION
from flowstack.testing._quota import Session
from flowstack.testing._records import Account
from flowstack.testing._sums import rows_of, totals_of, whole_range
from flowstack.testing._time import period_at, timestamp
from flowstack.testing._world import World

ADVANCED_ANALYTICS = "advanced_analytics"
ROWS_DEFAULT = 500


class UsageHistory:
    """The methods of UsageService about the past."""

    def __init__(self, world: World) -> None:
        self._world = world

    def list_sessions(self, call: Call, request: pb.ListSessionsRequest) -> pb.ListSessionsResponse:
        """The account's resolved sessions, those reserved last first."""
        with self._world.lock:
            now_us, account = self._world.clock.now_us(), self._world.account(call.account_id)
            period_us = _period_start_us(account, request) if request.HasField("period_time") else None
            found = [
                one
                for one in reversed(account.book.sessions.values())
                if _is_meant(one, request) and period_us in (None, one.period_start_us)
            ]
            page, token = page_of(found, call, request)
            records = [_record(session) for session in page]
        return pb.ListSessionsResponse(sessions=records, next_page_token=token, as_of_time=timestamp(now_us))

    def query_usage(self, call: Call, request: pb.QueryUsageRequest) -> pb.QueryUsageResponse:
        """Adds sessions up in buckets, in groups where the plan has them."""
        with self._world.lock:
            account, now_us = self._world.account(call.account_id), self._world.clock.now_us()
            terms = account.subscription.terms
            if request.group_by and not call.is_admin and ADVANCED_ANALYTICS not in terms.features:
                raise FakeError(
                    "FEATURE_NOT_IN_PLAN",
                    f"The plan {terms.plan_id} has no advanced analytics, which grouping needs. Leave group_by "
                    "out, or change to a plan that has it; ListPlans shows which.",
                    metadata={"plan": terms.plan_id, "feature": ADVANCED_ANALYTICS},
                )
            period = period_at(account.subscription.anchor_us, now_us)
            start_us, end_us = whole_range(request, period.start_us, now_us)
            rows = rows_of(request, start_us, end_us, account.book.sessions.values())
        page, token = page_of(rows, call, request, newest_first=False, size_default=ROWS_DEFAULT)
        return pb.QueryUsageResponse(
            rows=page, next_page_token=token, totals=totals_of(rows), as_of_time=timestamp(now_us)
        )

    def reconcile_usage(self, call: Call, request: pb.ReconcileUsageRequest) -> pb.ReconcileUsageResponse:
        """Finds no drift, and audits that it was asked: the fake keeps sessions in one place."""
        with self._world.lock:
            now_us = self._world.clock.now_us()
            accounts = list(reversed(self._world.accounts.values()))
            if call.account_id:
                accounts = [self._world.account(call.account_id)]
            page, token = page_of(accounts, call, request)
            facts = {"accounts_compared": len(page), "drifts": 0}
            account_id = call.account_id
            self._world.log.note(action_of(call), account_id, "ledger", account_id, NOTHING, facts, now_us)
        return pb.ReconcileUsageResponse(
            accounts_compared=len(page), as_of_time=timestamp(now_us), next_page_token=token
        )


def _record(session: Session) -> pb.SessionRecord:
    if session.cost_micro is None:
        return pb.SessionRecord(session=session.to_proto())
    assert session.outcome is not None
    return pb.SessionRecord(
        session=session.to_proto(),
        provider_cost=money(session.cost_micro),
        price_table_version=VERSION if session.outcome.served_provider else "",
    )


def _period_start_us(account: Account, request: pb.ListSessionsRequest) -> int:
    """The start of the period that contains the time; of an earlier subscription, where it lies before this one."""
    time_us, anchor_us = request.period_time.ToMicroseconds(), account.subscription.anchor_us
    if time_us >= anchor_us:
        return period_at(anchor_us, time_us).start_us
    starts = [one.period_start_us for one in account.book.sessions.values() if one.period_start_us <= time_us]
    return max(starts, default=0)


def _is_meant(session: Session, request: pb.ListSessionsRequest) -> bool:
    outcome = session.outcome
    if outcome is None:
        return False
    begin, end = request.start_time.ToMicroseconds(), request.end_time.ToMicroseconds()
    return (
        (not begin or session.reserve_us >= begin)
        and (not end or session.reserve_us < end)
        and (not request.states or session.state in request.states)
        and request.provider in ("", outcome.served_provider)
        and request.model in ("", outcome.served_model)
        and request.credential_mode in (0, outcome.served_credential_mode)
        and request.api_key_id in ("", session.api_key_id)
        and request.session_id in ("", session.session_id)
        and request.request_id in ("", session.request_id)
        and all(session.labels.get(name) == value for name, value in request.labels.items())
    )
