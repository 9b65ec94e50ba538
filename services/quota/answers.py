"""Decisions as the contract's message: what the caller gets and the ledger keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.quota.domain import Decision, LimitState
from tollway.quota.v1 import quota_pb2


def to_message(decision: Decision) -> quota_pb2.Decision:
    """Made once per decision: the ledger's line and the caller's answer are the same."""
    message = decision.rendered
    if message is None:
        message = decision.rendered = _render(decision)
    assert isinstance(message, quota_pb2.Decision)  # noqa: S101 - nothing else is ever put there
    return message


def to_limit(state: LimitState) -> quota_pb2.LimitState:
    return quota_pb2.LimitState(
        name=state.name,
        used=state.used,
        limit=state.limit,
        remaining=state.remaining,
        reset_time=to_timestamp(state.reset),
    )


def to_timestamp(moment: datetime | None) -> Timestamp | None:
    return None if moment is None else Timestamp(seconds=int(moment.timestamp()))


def from_ledger(answer: bytes) -> Decision:
    """The grant as it was first told."""
    message = quota_pb2.Decision.FromString(answer)
    limits = [
        LimitState(
            limit.name,
            limit.used,
            limit.limit if limit.HasField("limit") else None,
            limit.reset_time.ToDatetime(UTC) if limit.HasField("reset_time") else None,
        )
        for limit in message.limits
    ]
    return Decision(message.tier, message.version, limits)


def _render(decision: Decision) -> quota_pb2.Decision:
    limits = [to_limit(state) for state in decision.limits]
    refused = decision.refused
    if refused is None:
        return quota_pb2.Decision(
            allowed=True,
            limits=limits,
            replayed=decision.replayed,
            tier=decision.tier,
            version=decision.version,
        )
    return quota_pb2.Decision(
        binding_limit=refused.limit,
        refusal=quota_pb2.Refusal(
            reason=refused.refusal.reason,
            http_status=refused.refusal.http_status,
            detail=refused.refusal.detail,
            billing_url=refused.billing_url,
            support_contact=refused.support_contact,
        ),
        limits=limits,
        retry_after=None if refused.retry_after is None else _seconds(refused.retry_after),
        tier=decision.tier,
        version=decision.version,
    )


def _seconds(delay: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(delay)
    return message
