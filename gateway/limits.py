"""Limits as REST callers read them: in bodies, in refusals and in headers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from gateway.headers import Window
from gateway.problems import QUOTA_EXCEEDED, REDUCED_CAPACITY, REFUSALS, Problem, seconds
from gateway.times import rfc3339
from services.kit.clock import Clock
from tollway.quota.v1 import quota_pb2 as pb

_KINDS: dict[pb.LimitKind.ValueType, Literal["rate", "quota", "cap", "concurrency"]] = {
    pb.LIMIT_KIND_RATE: "rate",
    pb.LIMIT_KIND_QUOTA: "quota",
    pb.LIMIT_KIND_CAP: "cap",
    pb.LIMIT_KIND_CONCURRENCY: "concurrency",
}

State = pb.LimitState | pb.MeterUsage


class Limit(BaseModel):
    name: str = Field(examples=["messages_per_month"])
    kind: Literal["rate", "quota", "cap", "concurrency"] = Field(
        description="cap: what the account set on itself; concurrency: `used` are the leases that live now.",
        examples=["quota"],
    )
    used: int
    limit: int | None = Field(description="null: unlimited")
    remaining: int | None
    resets_at: str | None = Field(description="null: never", examples=["2026-04-01T00:00:00Z"])
    window_seconds: int | None = Field(description="Of a rate: at most `limit` in any span of this length.")
    auto_stop: bool | None = Field(description="Of a cap: whether it refuses; false: it only warns.")


def limit_of(state: State | None) -> int | None:
    return state.limit if state is not None and state.HasField("limit") else None


def remaining_of(state: State | None) -> int | None:
    return state.remaining if state is not None and state.HasField("remaining") else None


def reset_of(state: State | None) -> str | None:
    return rfc3339(state.reset_time) if state is not None and state.HasField("reset_time") else None


def to_limit(state: pb.LimitState) -> Limit:
    kind = _kind(state)
    return Limit(
        name=state.name,
        kind=kind,
        used=state.used,
        limit=limit_of(state),
        remaining=remaining_of(state),
        resets_at=reset_of(state),
        window_seconds=_window_s(state),
        auto_stop=state.auto_stop if kind == "cap" else None,
    )


def tightest(limits: Sequence[pb.LimitState]) -> pb.LimitState | None:
    """The quota or cap with the least left; without a limited one, the first. Not one of them: a cap that only warns.
    Rates and slots are in `limits`."""
    counted = [state for state in limits if _kind(state) in {"quota", "cap"} and not _only_warns(state)]
    limited = [state for state in counted if state.HasField("remaining")]
    return min(limited, key=lambda state: state.remaining) if limited else next(iter(counted), None)


def windows(limits: Sequence[pb.LimitState], clock: Clock) -> list[Window]:
    """Every limit that has a number and refuses, for the RateLimit headers."""
    now = clock.now().timestamp()
    return [
        Window(
            state.name,
            state.limit,
            state.remaining,
            max(0, math.ceil(state.reset_time.seconds + state.reset_time.nanos / 1e9 - now))
            if state.HasField("reset_time")
            else None,
            _window_s(state),
            concurrent=_kind(state) == "concurrency",
        )
        for state in limits
        if state.HasField("limit") and not _only_warns(state)
    ]


def binding(decision: pb.Decision) -> pb.LimitState | None:
    """The limit that refused, as it stands; None for a kill switch or a gate."""
    return next((state for state in decision.limits if state.name == decision.binding_limit), None)


def refusal(meter: str, decision: pb.Decision, headers: dict[str, str], billing_page: str) -> Problem:
    """What a limit's refusal says: the catalog's status and words, and the limit as it stands. `billing_page`: the
    account's own, told where paying helps."""
    told, bound = decision.refusal, binding(decision)
    status = told.http_status if told.http_status in REFUSALS else 429
    extra: dict[str, Any] = {
        "violated-policies": [decision.binding_limit] if decision.binding_limit else [],
        "checkoutUrl": billing_page if told.billing_url else "",
        "supportContact": told.support_contact,
    }
    if decision.HasField("retry_after"):
        headers["Retry-After"] = seconds(decision.retry_after.ToTimedelta())
    reason = told.reason or "quota_exceeded"
    return Problem(
        reason,
        told.detail or "A limit of the plan is reached.",
        status=status,
        title="Temporarily reduced capacity" if status == 503 else "Quota exceeded",
        type_uri=REDUCED_CAPACITY if status == 503 else QUOTA_EXCEEDED,
        headers=headers,
        reason=reason,
        meter=meter,
        used=bound.used if bound else None,
        limit=limit_of(bound),
        remaining=remaining_of(bound),
        resets_at=reset_of(bound),
        tier=decision.tier,
        **{name: value for name, value in extra.items() if value},
    )


def _kind(state: pb.LimitState) -> Literal["rate", "quota", "cap", "concurrency"]:
    # A quota of an older release does not tell its kind; it had rates, which have a window, and quotas.
    return _KINDS.get(state.kind) or ("rate" if state.HasField("window") else "quota")


def _only_warns(state: pb.LimitState) -> bool:
    return _kind(state) == "cap" and not state.auto_stop


def _window_s(state: pb.LimitState) -> int | None:
    return state.window.seconds if state.HasField("window") else None
