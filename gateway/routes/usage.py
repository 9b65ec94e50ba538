"""Usage: count one use of a meter before the work is done, and list what has been used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from gateway.auth import User
from gateway.backend import Services
from gateway.body import Body, Text, json_body
from gateway.headers import IdempotencyKey, Window, rate_limit
from gateway.operations import ACCESS_TOKEN, API_KEY, operation
from gateway.problems import QUOTA_EXCEEDED, REDUCED_CAPACITY, Problem, seconds
from gateway.times import rfc3339
from services.kit.clock import Clock
from tollway.quota.v1 import quota_pb2 as pb

router = APIRouter(tags=["usage"])
MAX_AMOUNT = 2**62
_REFUSED = frozenset({402, 403, 429, 503})


class Use(Body):
    meter: Text = Field(min_length=1, max_length=100, examples=["messages"])
    amount: int = Field(1, ge=1, le=MAX_AMOUNT, examples=[1])


class Limit(BaseModel):
    name: str = Field(examples=["messages_per_month"])
    used: int
    limit: int | None = Field(description="null: unlimited")
    remaining: int | None
    resets_at: str | None = Field(description="null: never", examples=["2026-04-01T00:00:00Z"])


class MeterUsage(BaseModel):
    meter: str = Field(examples=["messages"])
    used: int | None = Field(description="null: this meter has no limit that counts")
    limit: int | None = Field(description="The tightest quota; null: unlimited")
    remaining: int | None
    resets_at: str | None = Field(description="null: never", examples=["2026-04-01T00:00:00Z"])
    limits: list[Limit] = Field(description="Every limit over this meter")


class Counted(MeterUsage):
    allowed: Literal[True] = True
    amount: int
    tier: str = Field(examples=["pro"])
    replayed: bool = Field(description="True: this Idempotency-Key was counted before; nothing was counted now.")


class Usage(BaseModel):
    tier: str = Field(examples=["pro"])
    meters: list[MeterUsage]


_RATE_HEADERS = {
    "RateLimit-Policy": {"$ref": "#/components/headers/RateLimitPolicy"},
    "RateLimit": {"$ref": "#/components/headers/RateLimit"},
}
_CREDENTIALS = (API_KEY, ACCESS_TOKEN)
_count = operation(
    "invalid_argument",
    "unknown_meter",
    "insufficient_scope",
    "account_not_found",
    "token_invalid",
    "token_expired",
    "resource_exhausted",
    "store_unavailable",
    body=Use,
    idempotent=True,
    credentials=_CREDENTIALS,
    answer_headers=_RATE_HEADERS,
)
_REFUSAL_EXAMPLE = {
    "type": QUOTA_EXCEEDED,
    "title": "Quota exceeded",
    "status": 402,
    "detail": "Your plan's messages for this month are used up.",
    "instance": "/v1/usage",
    "code": "message_quota_exceeded",
    "reason": "message_quota_exceeded",
    "meter": "messages",
    "used": 100_000,
    "limit": 100_000,
    "remaining": 0,
    "resets_at": "2026-04-01T00:00:00Z",
    "violated-policies": ["messages_per_month"],
    "request_id": "req_019ab0c4d5e67f8899aabbccddeeff00",
}
_REFUSAL = {"schema": {"$ref": "#/components/schemas/UsageRefused"}, "example": _REFUSAL_EXAMPLE}
_count["responses"][402] = {
    "description": "A limit of the plan refused. The catalog chooses between 402, 403, 429 and 503.",
    "headers": {**_RATE_HEADERS, "Retry-After": {"$ref": "#/components/headers/RetryAfter"}},
    "content": {"application/problem+json": _REFUSAL},
}


@router.post("/v1/usage", summary="Count a use", **_count)
async def count_use(
    caller: User,
    request_id: IdempotencyKey,
    body: Annotated[Use, Depends(json_body(Use))],
    backend: Services,
    request: Request,
    response: Response,
) -> Counted:
    """Call it once per use, before the work. 200: counted, durably. Anything else: nothing was counted.

    With an Idempotency-Key a retry is safe: a grant is counted once, and its repeat within 48 hours gets the first
    answer. A refusal is not remembered.
    """
    answer = await backend.quota.call(
        backend.usage.Consume,
        pb.ConsumeRequest(
            account_id=caller.account_id,
            meter=body.meter,
            amount=body.amount,
            request_id=request_id,
            key_id=caller.key_id,
        ),
    )
    decision = answer.decision
    headers = rate_limit(_windows(decision.limits, request.app.state.clock))
    headers["Cache-Control"] = "no-store"
    if not decision.allowed:
        raise refusal(body.meter, decision, headers)
    response.headers.update(headers)
    tightest = _tightest(decision.limits)
    return Counted(
        meter=body.meter,
        amount=body.amount,
        tier=decision.tier,
        replayed=decision.replayed,
        used=tightest.used if tightest else None,
        limit=_limit_of(tightest),
        remaining=_remaining_of(tightest),
        resets_at=_reset_of(tightest),
        limits=[_limit(state) for state in decision.limits],
    )


@router.get(
    "/v1/usage",
    summary="List what is used",
    **operation(
        "insufficient_scope",
        "account_not_found",
        "token_invalid",
        "token_expired",
        "store_unavailable",
        credentials=_CREDENTIALS,
    ),
)
async def list_usage(caller: User, backend: Services, response: Response) -> Usage:
    """Every meter of the plan in the period that runs now."""
    answer = await backend.quota.call(
        backend.usage.GetUsage, pb.GetUsageRequest(account_id=caller.account_id, key_id=caller.key_id)
    )
    response.headers["Cache-Control"] = "no-store"
    return Usage(tier=answer.tier, meters=[_meter(meter) for meter in answer.meters])


def refusal(meter: str, decision: pb.Decision, headers: dict[str, str]) -> Problem:
    """What a limit's refusal says: the catalog's status and words, and the limit as it stands."""
    told = decision.refusal
    binding = next((state for state in decision.limits if state.name == decision.binding_limit), None)
    status = told.http_status if told.http_status in _REFUSED else 429
    extra: dict[str, Any] = {
        "violated-policies": [decision.binding_limit] if decision.binding_limit else [],
        "checkoutUrl": told.billing_url,
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
        used=binding.used if binding else None,
        limit=_limit_of(binding),
        remaining=_remaining_of(binding),
        resets_at=_reset_of(binding),
        tier=decision.tier,
        **{name: value for name, value in extra.items() if value},
    )


State = pb.LimitState | pb.MeterUsage


def _limit_of(state: State | None) -> int | None:
    return state.limit if state is not None and state.HasField("limit") else None


def _remaining_of(state: State | None) -> int | None:
    return state.remaining if state is not None and state.HasField("remaining") else None


def _reset_of(state: State | None) -> str | None:
    return rfc3339(state.reset_time) if state is not None and state.HasField("reset_time") else None


def _limit(state: pb.LimitState) -> Limit:
    return Limit(
        name=state.name,
        used=state.used,
        limit=_limit_of(state),
        remaining=_remaining_of(state),
        resets_at=_reset_of(state),
    )


def _meter(meter: pb.MeterUsage) -> MeterUsage:
    return MeterUsage(
        meter=meter.meter,
        used=meter.used,
        limit=_limit_of(meter),
        remaining=_remaining_of(meter),
        resets_at=_reset_of(meter),
        limits=[_limit(state) for state in meter.limits],
    )


def _tightest(limits: Sequence[pb.LimitState]) -> pb.LimitState | None:
    """The quota with the least left; without a limited one, the first. A rate is no quota: it is in `limits`."""
    quotas = [state for state in limits if not state.HasField("window")]
    limited = [state for state in quotas if state.HasField("remaining")]
    return min(limited, key=lambda state: state.remaining) if limited else next(iter(quotas), None)


def _windows(limits: Sequence[pb.LimitState], clock: Clock) -> list[Window]:
    now = clock.now().timestamp()
    return [
        Window(
            state.name,
            state.limit,
            state.remaining,
            max(0, math.ceil(state.reset_time.seconds + state.reset_time.nanos / 1e9 - now))
            if state.HasField("reset_time")
            else None,
        )
        for state in limits
        if state.HasField("limit")
    ]
