"""Answers as the contract's messages: what the caller gets and the ledger keeps."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

from services.quota.domain import Adjusted, AllowanceState, Decision, Kind, Lease, LimitState, Refused
from tollway.quota.v1 import guardrail_pb2, quota_pb2


def to_response(decision: Decision) -> quota_pb2.ConsumeResponse:
    """Made once per decision: the ledger's line and the caller's answer are the same."""
    response = decision.rendered
    if response is None:
        response = decision.rendered = quota_pb2.ConsumeResponse()
        _fill(response.decision, decision)
    assert isinstance(response, quota_pb2.ConsumeResponse)  # noqa: S101 - nothing else is ever put there
    return response


def to_message(decision: Decision) -> quota_pb2.Decision:
    return to_response(decision).decision


def to_limit(state: LimitState) -> quota_pb2.LimitState:
    message = quota_pb2.LimitState()
    _fill_limit(message, state)
    return message


def to_lease(lease: Lease) -> quota_pb2.Lease:
    message = quota_pb2.Lease()
    _fill_lease(message, lease)
    return message


def to_allowance(state: AllowanceState) -> quota_pb2.AllowanceState:
    message = quota_pb2.AllowanceState(name=state.name, held=state.held)
    if state.limit is not None:
        message.limit = state.limit
        message.remaining = max(0, state.limit - state.held)
    return message


def to_adjusted(adjusted: Adjusted) -> guardrail_pb2.AdjustAllowanceResponse:
    message = guardrail_pb2.AdjustAllowanceResponse(
        allowed=adjusted.refused is None, allowance=to_allowance(adjusted.state)
    )
    if adjusted.refused is not None:
        _fill_refusal(message.refusal, adjusted.refused)
    return message


def to_timestamp(moment: datetime | None) -> Timestamp | None:
    return None if moment is None else Timestamp(seconds=_seconds(moment))


@lru_cache(maxsize=1024)  # the ends of periods are asked for with every answer
def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def from_ledger(answer: bytes) -> Decision:
    """The grant as it was first told."""
    message = quota_pb2.Decision.FromString(answer)
    return Decision(
        message.tier,
        message.version,
        [_from_limit(limit) for limit in message.limits],
        overage_units=message.overage_units,
        lease=_from_lease(message.lease) if message.HasField("lease") else None,
    )


def _from_limit(limit: quota_pb2.LimitState) -> LimitState:
    window = limit.window.ToTimedelta() if limit.HasField("window") else None
    # Lines of releases that did not tell the kind had rates, which have a window, and quotas.
    kind = Kind(limit.kind) if limit.kind else Kind.QUOTA if window is None else Kind.RATE
    return LimitState(
        limit.name,
        limit.used,
        limit.limit if limit.HasField("limit") else None,
        limit.reset_time.ToDatetime(UTC) if limit.HasField("reset_time") else None,
        window,
        kind,
        limit.auto_stop,
    )


def _from_lease(lease: quota_pb2.Lease) -> Lease:
    return Lease(
        lease.id,
        lease.account_id,
        lease.meter,
        lease.reserved,
        lease.acquire_time.ToDatetime(UTC),
        lease.expire_time.ToDatetime(UTC),
        lease.key_id,
        lease.subject,
    )


# Filled in place, which costs a third of building from parts: every part would be copied into its whole.
def _fill(message: quota_pb2.Decision, decision: Decision) -> None:
    refused = decision.refused
    if refused is None:
        message.allowed = True
    else:
        message.binding_limit = refused.limit
        _fill_refusal(message.refusal, refused)
        if refused.retry_after is not None:
            message.retry_after.FromTimedelta(refused.retry_after)
    for state in decision.limits:
        _fill_limit(message.limits.add(), state)
    if decision.replayed:
        message.replayed = True
    message.tier = decision.tier
    message.version = decision.version
    if decision.overage_units:
        message.overage_units = decision.overage_units
    if decision.unverified:
        message.unverified = True
    if decision.lease is not None:
        _fill_lease(message.lease, decision.lease)


def _fill_refusal(message: quota_pb2.Refusal, refused: Refused) -> None:
    message.reason = refused.refusal.reason
    message.http_status = refused.refusal.http_status
    message.detail = refused.refusal.detail
    message.billing_url = refused.billing_url
    message.support_contact = refused.support_contact


def _fill_limit(message: quota_pb2.LimitState, state: LimitState) -> None:
    message.name = state.name
    message.used = state.used
    message.kind = state.kind  # type: ignore[assignment]  # the domain's numbers are the contract's
    if state.limit is not None:
        message.limit = state.limit
        message.remaining = state.limit - state.used if state.limit > state.used else 0
    if state.reset is not None:
        message.reset_time.seconds = _seconds(state.reset)
    if (window := state.window) is not None:
        # FromTimedelta is Python, and costs twice as much.
        message.window.seconds = window.days * 86_400 + window.seconds
        if window.microseconds:
            message.window.nanos = window.microseconds * 1000
    if state.auto_stop:
        message.auto_stop = True


def _fill_lease(message: quota_pb2.Lease, lease: Lease) -> None:
    message.id = lease.id
    message.account_id = lease.account_id
    message.meter = lease.meter
    message.reserved = lease.reserved
    message.acquire_time.FromDatetime(lease.acquire_time)
    message.expire_time.FromDatetime(lease.expire_time)
    message.key_id = lease.key_id
    if lease.subject:
        message.subject = lease.subject
