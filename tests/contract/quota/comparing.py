"""Outcomes as two deciders must give them alike, whatever the instant."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from services.kit.errors import TollwayError
from services.quota.domain import Adjusted, Decision, Lease, LimitState, Outcome, Reversal, Unknown

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def timeless(outcome: Outcome) -> tuple[object, ...]:
    """As `plain`, and without the times of leases."""
    if isinstance(outcome, Lease):
        return plain(_timeless(outcome))
    if isinstance(outcome, Decision) and outcome.lease is not None:
        return plain(replace(outcome, lease=_timeless(outcome.lease)))
    return plain(outcome)


def _timeless(lease: Lease) -> Lease:
    return replace(lease, acquire_time=_NEVER, expire_time=_NEVER)


def plain(outcome: Outcome) -> tuple[object, ...]:
    """What of an outcome does not depend on the instant at which a rate was asked."""
    match outcome:
        case TollwayError():
            return (outcome.code, outcome.error_reason, outcome.field)
        case Unknown():
            return ("unknown",)
        case Lease() | Reversal():
            return tuple(vars(outcome).items())
        case LimitState():
            return _plain_limit(outcome)
        case Adjusted():
            return (outcome.state, outcome.refused, outcome.replayed)
    refused = outcome.refused
    return (
        outcome.allowed,
        refused and (refused.limit, refused.refusal, refused.billing_url, refused.support_contact),
        outcome.replayed,
        outcome.tier,
        outcome.version,
        outcome.overage_units,
        outcome.lease,
        [_plain_limit(state) for state in outcome.limits],
    )


def _plain_limit(state: LimitState) -> tuple[object, ...]:
    return (
        state.name,
        state.kind,
        state.used,
        state.limit,
        state.remaining,
        state.auto_stop,
        state.window or state.reset,
    )
