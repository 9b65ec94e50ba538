"""Usage: count one use of a meter before the work is done, and list what has been used."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from gateway.auth import UsageReader, User
from gateway.backend import Services
from gateway.body import Body, Text, json_body
from gateway.headers import IdempotencyKey, rate_limit
from gateway.limits import (
    Limit,
    limit_of,
    refusal,
    remaining_of,
    reset_of,
    tightest,
    to_limit,
    windows,
)
from gateway.operations import ACCESS_TOKEN, API_KEY, QUOTA_DECIDES, QUOTA_READ, operation
from tollway.quota.v1 import quota_pb2 as pb

router = APIRouter(tags=["usage"])
MAX_AMOUNT = 2**62


class Use(Body):
    meter: Text = Field(min_length=1, max_length=100, examples=["messages"])
    amount: int = Field(1, ge=1, le=MAX_AMOUNT, examples=[1])


class MeterUsage(BaseModel):
    meter: str = Field(examples=["messages"])
    used: int | None = Field(description="Of this meter alone")
    limit: int | None = Field(description="The tightest quota; null: unlimited")
    remaining: int | None = Field(
        description="Of that quota: less than `limit` - `used` where leases hold units, or other meters use it too"
    )
    resets_at: str | None = Field(description="null: never", examples=["2026-04-01T00:00:00Z"])
    limits: list[Limit] = Field(description="Every limit over this meter")


class Counted(MeterUsage):
    used: int | None = Field(description="Of the tightest quota or cap; null: this meter has no limit that counts")
    limit: int | None = Field(description="The tightest quota or cap; null: unlimited")
    remaining: int | None = Field(description="Of the same")
    allowed: Literal[True] = True
    amount: int
    tier: str = Field(examples=["pro"])
    replayed: bool = Field(description="True: this Idempotency-Key was counted before; nothing was counted now.")


class Allowance(BaseModel):
    name: str = Field(examples=["seats"])
    held: int
    limit: int | None = Field(description="null: unlimited")
    remaining: int | None


class Usage(BaseModel):
    tier: str = Field(examples=["pro"])
    meters: list[MeterUsage]
    allowances: list[Allowance] = Field(description="What is held now of the things that the plan counts")


_CREDENTIALS = (API_KEY, ACCESS_TOKEN)
_count = operation(
    "invalid_argument",
    "unknown_meter",
    "insufficient_scope",
    "account_not_found",
    "counter_full",
    "reversed",
    "resource_exhausted",
    *QUOTA_DECIDES,
    body=Use,
    idempotent=True,
    credentials=_CREDENTIALS,
    metered=True,
)


@router.post("/v1/usage", response_model=Counted, summary="Count a use", **_count)
async def count_use(
    caller: User,
    request_id: IdempotencyKey,
    body: Annotated[Use, Depends(json_body(Use))],
    backend: Services,
    request: Request,
) -> Response:
    """Call it once per use, before the work. 200: counted, durably. A refusal counts nothing; where no answer came in
    time, a repeat with the same Idempotency-Key tells.

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
    headers = rate_limit(windows(decision.limits, request.app.state.clock))
    headers["Cache-Control"] = "no-store"
    if not decision.allowed:
        raise refusal(body.meter, decision, headers, caller.billing_page(request.app.state.public_url))
    bound = tightest(decision.limits)
    counted = Counted(
        meter=body.meter,
        amount=body.amount,
        tier=decision.tier,
        replayed=decision.replayed,
        used=bound.used if bound else None,
        limit=limit_of(bound),
        remaining=remaining_of(bound),
        resets_at=reset_of(bound),
        limits=[to_limit(state) for state in decision.limits],
    )
    # Rendered here, where it is asked most: the framework would validate it again and go through a dict.
    return Response(counted.model_dump_json(), headers=headers, media_type="application/json")


@router.get(
    "/v1/usage",
    summary="List what is used",
    **operation(
        "insufficient_scope",
        "account_not_found",
        *QUOTA_READ,
        credentials=_CREDENTIALS,
    ),
)
async def list_usage(caller: UsageReader, backend: Services, response: Response) -> Usage:
    """Every meter of the plan in the period that runs now, with its caps and concurrency; and what is held."""
    answer = await backend.quota.call(
        backend.usage.GetUsage, pb.GetUsageRequest(account_id=caller.account_id, key_id=caller.key_id)
    )
    response.headers["Cache-Control"] = "no-store"
    return Usage(
        tier=answer.tier,
        meters=[_meter(meter) for meter in answer.meters],
        allowances=[
            Allowance(
                name=state.name,
                held=state.held,
                limit=state.limit if state.HasField("limit") else None,
                remaining=state.remaining if state.HasField("remaining") else None,
            )
            for state in answer.allowances
        ],
    )


def _meter(meter: pb.MeterUsage) -> MeterUsage:
    return MeterUsage(
        meter=meter.meter,
        used=meter.used,
        limit=limit_of(meter),
        remaining=remaining_of(meter),
        resets_at=reset_of(meter),
        limits=[to_limit(state) for state in meter.limits],
    )
