"""Decisions as the contract's message: what the caller gets and the ledger keeps."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.quota.domain import Decision, LimitState
from tollway.quota.v1 import quota_pb2


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
            limit.window.ToTimedelta() if limit.HasField("window") else None,
        )
        for limit in message.limits
    ]
    return Decision(message.tier, message.version, limits)


# Filled in place, which costs a third of building from parts: every part would be copied into its whole.
def _fill(message: quota_pb2.Decision, decision: Decision) -> None:
    refused = decision.refused
    if refused is None:
        message.allowed = True
    else:
        message.binding_limit = refused.limit
        refusal = message.refusal
        refusal.reason = refused.refusal.reason
        refusal.http_status = refused.refusal.http_status
        refusal.detail = refused.refusal.detail
        refusal.billing_url = refused.billing_url
        refusal.support_contact = refused.support_contact
        if refused.retry_after is not None:
            message.retry_after.FromTimedelta(refused.retry_after)
    for state in decision.limits:
        _fill_limit(message.limits.add(), state)
    message.replayed = decision.replayed
    message.tier = decision.tier
    message.version = decision.version


def _fill_limit(message: quota_pb2.LimitState, state: LimitState) -> None:
    message.name = state.name
    message.used = state.used
    if state.limit is not None:
        message.limit = state.limit
        message.remaining = max(0, state.limit - state.used)
    if state.reset is not None:
        message.reset_time.seconds = int(state.reset.timestamp())
    if state.window is not None:
        message.window.FromTimedelta(state.window)
