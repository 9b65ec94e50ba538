"""Whether what is held here is what Stripe has, and what became of Stripe's events. For operators."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from gateway.auth import Operator
from gateway.backend import STRIPE_CALL_S, Services
from gateway.body import Body, Text, json_body
from gateway.operations import OPERATOR, operation
from gateway.times import rfc3339
from tollway.billing.v1 import reconcile_pb2 as pb

router = APIRouter(prefix="/v1/operator", tags=["operator"])
_PRIVATE = {"Cache-Control": "no-store"}


class ReconcileBody(Body):
    account_id: Text | None = Field(None, max_length=100, description="null: all accounts, in pages.")
    dry_run: bool = Field(False, description="Say what differs, change nothing.")
    page_token: Text | None = Field(None, max_length=100)


class Drift(BaseModel):
    account_id: str
    object_id: str = Field(examples=["sub_1TxYz"])
    field: str = Field(description="* for an object that is not held here at all.", examples=["status"])
    ours: str
    stripes: str


class Reconciled(BaseModel):
    drifts: list[Drift]
    accounts: int
    missed_events: int = Field(description="Events that never arrived; of the first page only.")
    busy: int = Field(description="Accounts that were being read anyway.")
    next_page_token: str | None = Field(description="null: this was the last page.")


class StripeEvent(BaseModel):
    id: str = Field(examples=["evt_1TxYz"])
    type: str = Field(examples=["invoice.paid"])
    account_id: str | None
    customer_id: str | None
    status: str = Field(description="pending, applied, ignored, ignored_foreign or dead", examples=["applied"])
    created_at: str
    received_at: str


class StripeEvents(BaseModel):
    events: list[StripeEvent]


class ShownEvent(StripeEvent):
    payload: dict[str, Any] = Field(description="As Stripe sent it.")


class Replayed(BaseModel):
    id: str


@router.post(
    "/reconcile",
    summary="Compare with Stripe, and repair",
    **operation(
        "account_not_found", "invalid_argument", "stripe_unavailable", body=ReconcileBody, credentials=OPERATOR
    ),
)
async def reconcile(
    operator: Operator,
    body: Annotated[ReconcileBody, Depends(json_body(ReconcileBody))],
    backend: Services,
    response: Response,
) -> Reconciled:
    """Field by field. Safe to repeat."""
    asked = pb.ReconcileRequest(
        account_id=body.account_id or "", dry_run=body.dry_run, page_token=body.page_token or ""
    )
    answer = await backend.billing.call(backend.reconciling.Reconcile, asked, timeout_s=STRIPE_CALL_S)
    response.headers.update(_PRIVATE)
    return Reconciled(
        drifts=[
            Drift(
                account_id=each.account_id,
                object_id=each.object_id,
                field=each.field,
                ours=each.ours,
                stripes=each.stripes,
            )
            for each in answer.drifts
        ],
        accounts=answer.accounts,
        missed_events=answer.missed_events,
        busy=answer.busy,
        next_page_token=answer.next_page_token or None,
    )


@router.get("/stripe-events", summary="List Stripe's events", **operation("invalid_argument", credentials=OPERATOR))
async def list_stripe_events(
    operator: Operator,
    backend: Services,
    response: Response,
    status: Annotated[str, Query(max_length=20, description="Only these, such as dead.")] = "",
    account_id: Annotated[str, Query(max_length=100)] = "",
    page_size: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> StripeEvents:
    """Newest first."""
    asked = pb.ListStripeEventsRequest(status=status, account_id=account_id, page_size=page_size)
    answer = await backend.billing.call(backend.reconciling.ListStripeEvents, asked)
    response.headers.update(_PRIVATE)
    return StripeEvents(events=[StripeEvent(**_event(each)) for each in answer.events])


@router.get("/stripe-events/{event_id}", summary="Show an event", **operation("event_not_found", credentials=OPERATOR))
async def show_stripe_event(operator: Operator, event_id: str, backend: Services, response: Response) -> ShownEvent:
    """With what Stripe sent."""
    asked = pb.GetStripeEventRequest(event_id=event_id[:255])
    answer = await backend.billing.call(backend.reconciling.GetStripeEvent, asked)
    response.headers.update(_PRIVATE)
    return ShownEvent(**_event(answer.event), payload=json.loads(answer.payload))


@router.post(
    "/stripe-events/{event_id}/replay",
    summary="Apply an event again",
    **operation("event_not_found", credentials=OPERATOR),
)
async def replay_stripe_event(operator: Operator, event_id: str, backend: Services, response: Response) -> Replayed:
    """Its account is read from Stripe again. Safe to repeat."""
    asked = pb.ReplayStripeEventRequest(event_id=event_id[:255])
    await backend.billing.call(backend.reconciling.ReplayStripeEvent, asked)
    response.headers.update(_PRIVATE)
    return Replayed(id=event_id)


def _event(event: pb.StripeEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": event.type,
        "account_id": event.account_id or None,
        "customer_id": event.customer_id or None,
        "status": event.status,
        "created_at": rfc3339(event.create_time),
        "received_at": rfc3339(event.receive_time),
    }
