"""Entitlements."""

from __future__ import annotations

from flowstack_protos.quota.v1 import quota_service_pb2 as pb

from services.quota.convert.times import optional_time, time_to_proto, us_from_proto
from services.quota.domain.model import Block, BlockReason, Entitlement, Term


def entitlement_from_proto(entitlement: pb.Entitlement) -> Entitlement:
    """Entitlement to domain.

    Raises:
        FlowStackError: INVALID_REQUEST for times beyond what a period can be computed from.
    """
    block = None
    if entitlement.HasField("block"):
        until_us = us_from_proto(entitlement.block.until_time, "entitlement.block.until_time")
        block = Block(BlockReason(entitlement.block.reason), entitlement.block.message, until_us)
    return Entitlement(
        entitlement.account_id,
        entitlement.revision,
        entitlement.subscription_id,
        us_from_proto(entitlement.period_anchor_time, "entitlement.period_anchor_time"),
        tuple(_term_from_proto(term) for term in entitlement.terms),
        us_from_proto(entitlement.end_time, "entitlement.end_time"),
        block,
    )


def _term_from_proto(term: pb.EntitlementTerm) -> Term:
    return Term(
        us_from_proto(term.effective_time, "entitlement.terms.effective_time"),
        term.plan_id,
        term.session_limit,
        tuple(term.managed_providers),
        term.max_concurrent_sessions,
        term.max_output_tokens,
        term.max_tool_rounds,
        term.upgrade_plan_id,
    )


def entitlement_to_proto(entitlement: Entitlement) -> pb.Entitlement:
    """Domain to Entitlement."""
    block = entitlement.block
    return pb.Entitlement(
        account_id=entitlement.account_id,
        revision=entitlement.revision,
        subscription_id=entitlement.subscription_id,
        period_anchor_time=time_to_proto(entitlement.period_anchor_us),
        terms=[_term_to_proto(term) for term in entitlement.terms],
        end_time=optional_time(entitlement.end_us),
        block=None
        if block is None
        else pb.Block(
            reason=block.reason.value,  # type: ignore[arg-type]  # as above
            message=block.message,
            until_time=optional_time(block.until_us),
        ),
    )


def _term_to_proto(term: Term) -> pb.EntitlementTerm:
    return pb.EntitlementTerm(
        effective_time=time_to_proto(term.effective_us),
        plan_id=term.plan_id,
        session_limit=term.session_limit,
        managed_providers=term.managed_providers,
        max_concurrent_sessions=term.max_concurrent_sessions,
        max_output_tokens=term.max_output_tokens,
        max_tool_rounds=term.max_tool_rounds,
        upgrade_plan_id=term.upgrade_plan_id,
    )
