"""Stripe's webhooks: handed to billing byte for byte, which alone knows the secret."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from gateway.backend import Services
from gateway.body import MAX_WEBHOOK_BYTES, read
from gateway.operations import operation
from gateway.problems import Problem
from services.kit import errors
from tollway.billing.v1.webhook_pb2 import IngestWebhookRequest

router = APIRouter(tags=["webhooks"])
INGEST_S = 10.0  # Stripe waits longer; a database that does not commit by then is answered 503, and Stripe retries

_EXTRA = {
    "parameters": [
        {
            "name": "Stripe-Signature",
            "in": "header",
            "required": True,
            "schema": {"type": "string"},
            "example": "t=1774224000,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {"id": "evt_1TxYz", "object": "event", "type": "invoice.paid", "data": {"object": {}}},
            }
        },
    },
}


class Received(BaseModel):
    received: Literal[True] = True


_described = operation("signature_invalid", "livemode_mismatch", "event_malformed", "body_too_large", "unavailable")
_described["openapi_extra"] |= _EXTRA


@router.post("/webhooks/stripe", summary="Receive a Stripe event", **_described)
async def receive_stripe_event(request: Request, backend: Services) -> Received:
    """200: kept, and it will be applied. A repeated delivery is 200 too."""
    signatures = request.headers.getlist("stripe-signature")
    payload = await read(request, MAX_WEBHOOK_BYTES)
    if len(signatures) != 1:
        raise Problem("signature_invalid", "One Stripe-Signature header is expected.")
    try:
        await backend.billing.call(
            backend.webhooks.IngestWebhook,
            IngestWebhookRequest(payload=payload, signature=signatures[0]),
            timeout_s=INGEST_S,
        )
    except errors.DeadlineExceeded:
        raise Problem("unavailable", headers={"Retry-After": "1"}) from None
    return Received()
