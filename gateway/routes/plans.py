"""The catalog's tiers, for a pricing page."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from gateway import etags
from gateway.backend import Services
from gateway.operations import operation
from tollway.billing.v1 import billing_pb2 as pb

router = APIRouter(tags=["plans"])


class Price(BaseModel):
    id: str | None = Field(description="Stripe's id; null until the price is on sale.", examples=["price_1Q…"])
    lookup_key: str = Field(examples=["skytale_pro_month"])
    unit_amount: int = Field(description="Whole minor units.", examples=[2900])
    currency: str = Field(examples=["usd"])
    interval: str = Field(description="month or year", examples=["month"])


class Quota(BaseModel):
    meter: str = Field(examples=["messages"])
    limit: int | None = Field(description="null: unlimited", examples=[1_000_000])
    period: str = Field(description="month, billing_period or lifetime", examples=["month"])


class Plan(BaseModel):
    tier: str = Field(examples=["pro"])
    name: str = Field(examples=["Pro"])
    description: str
    prices: list[Price]
    contact_sales: bool
    quotas: list[Quota]


class Plans(BaseModel):
    product: str = Field(examples=["Skytale"])
    plans: list[Plan]


@router.get(
    "/v1/plans",
    response_model=Plans,
    summary="List the plans",
    **operation("unavailable", "deadline_exceeded", cached=True),
)
async def list_plans(backend: Services, request: Request) -> Response:
    """The tiers in order, with the prices that are on sale."""
    answer = await backend.billing.call(backend.plans.ListPlans, pb.ListPlansRequest())
    plans = Plans(product=answer.product, plans=[_plan(plan) for plan in answer.plans])
    return etags.answer(request, plans.model_dump_json().encode(), "application/json", {"Cache-Control": "no-cache"})


def _plan(plan: pb.Plan) -> Plan:
    return Plan(
        tier=plan.tier,
        name=plan.display_name,
        description=plan.description,
        prices=[
            Price(
                id=price.id or None,
                lookup_key=price.lookup_key,
                unit_amount=price.unit_amount,
                currency=price.currency,
                interval=price.interval,
            )
            for price in plan.prices
        ],
        contact_sales=plan.contact_sales,
        quotas=[
            Quota(meter=quota.meter, limit=quota.limit if quota.HasField("limit") else None, period=quota.period)
            for quota in plan.quotas
        ],
    )
