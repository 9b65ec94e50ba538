"""What operators do with accounts: look for one, put it on a tier by agreement, ask why it is on its tier."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from gateway.auth import Operator
from gateway.backend import Services
from gateway.body import Body, Text, json_body
from gateway.operations import OPERATOR, operation
from gateway.paging import PageQuery, paged
from gateway.times import Instant, rfc3339
from tollway.billing.v1 import operator_pb2 as pb

router = APIRouter(prefix="/v1/operator/accounts", tags=["operator"])
_PRIVATE = {"Cache-Control": "no-store"}


class OverrideBody(Body):
    tier: Text | None = Field(max_length=100, description="null removes the override.", examples=["enterprise"])
    terms: Text = Field("", max_length=2000, description="What was agreed; needed to set it.", examples=["Order 4711"])
    ends_at: Instant | None = Field(None, description="null: until it is removed.", examples=["2027-04-01T00:00:00Z"])


class Override(BaseModel):
    tier: str = Field(examples=["enterprise"])
    terms: str
    ends_at: str | None = Field(description="null: until it is removed.")
    set_at: str
    set_by: str


class OverrideAnswer(BaseModel):
    override: Override | None = Field(description="null: there is none any more.")


class FoundAccount(BaseModel):
    id: str = Field(examples=["acct_019ab0c4d5e67f8899aabbccddeeff00"])
    slug: str = Field(examples=["adas-relay"])
    name: str
    email: str
    tier: str
    status: str | None = Field(description="Stripe's; null before the first subscription.")
    stripe_customer_id: str | None
    overridden: bool
    created_at: str


class FoundAccounts(BaseModel):
    accounts: list[FoundAccount]
    next_page_token: str | None = Field(description="null: this is the last page.")


class Explanation(BaseModel):
    account: FoundAccount
    version: int
    because: list[str] = Field(description="One sentence a reason; the last one is the outcome.")
    subscription_id: str | None
    price_id: str | None
    lookup_key: str | None
    lifecycle_outcome: str | None = Field(description="price, keep or a tier", examples=["price"])
    price_tier: str | None
    event_id: str | None
    event_type: str | None
    event_at: str | None
    override: Override | None
    catalog_hash: str
    product: str
    changed_at: str
    reads_waiting: int = Field(description="Reads of Stripe that are due and not done yet.")
    read_error: str | None


@router.get("", summary="Look for accounts", **paged(operation("invalid_argument", credentials=OPERATOR)))
async def search_accounts(
    operator: Operator,
    page: PageQuery,
    backend: Services,
    response: Response,
    query: Annotated[str, Query(max_length=200, description="Part of an id, slug, name, email or customer id.")] = "",
) -> FoundAccounts:
    """Newest first."""
    asked = pb.SearchAccountsRequest(query=query, page_size=page.size, page_token=page.token)
    answer = await backend.billing.call(backend.operators.SearchAccounts, asked)
    response.headers.update(_PRIVATE)
    found = [_found(each) for each in answer.accounts]
    return FoundAccounts(accounts=found, next_page_token=answer.next_page_token or None)


@router.get(
    "/{account_id}",
    summary="Explain an account's tier",
    **operation("account_not_found", credentials=OPERATOR),
)
async def explain_account(operator: Operator, account_id: str, backend: Services, response: Response) -> Explanation:
    """Why it is on its tier: from which subscription, event, override and catalog."""
    asked = pb.ExplainAccountRequest(account_id=account_id[:100])
    told = await backend.billing.call(backend.operators.ExplainAccount, asked)
    response.headers.update(_PRIVATE)
    return Explanation(
        account=_found(told.account),
        version=told.version,
        because=list(told.because),
        subscription_id=told.subscription_id or None,
        price_id=told.price_id or None,
        lookup_key=told.lookup_key or None,
        lifecycle_outcome=told.lifecycle_outcome or None,
        price_tier=told.price_tier or None,
        event_id=told.event_id or None,
        event_type=told.event_type or None,
        event_at=rfc3339(told.event_time) if told.HasField("event_time") else None,
        override=_override(told.override) if told.HasField("override") else None,
        catalog_hash=told.catalog_hash,
        product=told.product,
        changed_at=rfc3339(told.change_time),
        reads_waiting=told.reads_waiting,
        read_error=told.read_error or None,
    )


@router.put(
    "/{account_id}/override",
    summary="Put an account on a tier by agreement",
    **operation("account_not_found", "unknown_tier", "invalid_argument", body=OverrideBody, credentials=OPERATOR),
)
async def set_override(
    operator: Operator,
    account_id: str,
    body: Annotated[OverrideBody, Depends(json_body(OverrideBody))],
    backend: Services,
    response: Response,
) -> OverrideAnswer:
    """In force on the next decision, whatever the subscription says, until it ends; asking twice changes nothing."""
    response.headers.update(_PRIVATE)
    if body.tier is None:
        gone = pb.RemoveOverrideRequest(account_id=account_id[:100], actor=operator.actor)
        await backend.billing.call(backend.operators.RemoveOverride, gone)
        return OverrideAnswer(override=None)
    asked = pb.SetOverrideRequest(account_id=account_id[:100], actor=operator.actor, tier=body.tier, terms=body.terms)
    if body.ends_at is not None:
        asked.end_time.FromDatetime(body.ends_at)
    answer = await backend.billing.call(backend.operators.SetOverride, asked)
    return OverrideAnswer(override=_override(answer.override))


def _found(found: pb.FoundAccount) -> FoundAccount:
    return FoundAccount(
        id=found.account.id,
        slug=found.account.slug,
        name=found.account.name,
        email=found.account.email,
        tier=found.tier,
        status=found.status or None,
        stripe_customer_id=found.stripe_customer_id or None,
        overridden=found.overridden,
        created_at=rfc3339(found.account.create_time),
    )


def _override(override: pb.Override) -> Override:
    return Override(
        tier=override.tier,
        terms=override.terms,
        ends_at=rfc3339(override.end_time) if override.HasField("end_time") else None,
        set_at=rfc3339(override.create_time),
        set_by=override.actor.id,
    )
