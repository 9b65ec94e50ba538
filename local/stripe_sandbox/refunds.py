"""Refunds: money of a charge given back, whole or in parts, by API or in the dashboard."""

from __future__ import annotations

from . import events, ids
from .context import Context
from .errors import invalid
from .fields import apply
from .lists import Condition, equals, page
from .money import shown
from .params import TIME_RANGE, boolean, choice, integer, metadata, text
from .payment_methods import card_of
from .routing import get, listing, post
from .store import Json

FIELDS = {
    "amount": integer,
    "charge": text,
    "currency": text,
    "customer": text,
    "instructions_email": text,
    "metadata": metadata,
    "payment_intent": text,
    "reason": choice("duplicate", "fraudulent", "requested_by_customer"),
    "refund_application_fee": boolean,
    "reverse_transfer": boolean,
}


@post("/v1/refunds", FIELDS)
def create(ctx: Context, params: Json) -> Json:
    return make(ctx, charge_of(ctx, params), params)


def charge_of(ctx: Context, params: Json) -> Json:
    """The charge that `charge` or `payment_intent` names. Raises invalid."""
    if params.get("charge"):
        charge = ctx.need(params["charge"], "charge", param="charge")
        if params.get("payment_intent") not in (None, charge["payment_intent"]):
            raise invalid("The charge does not belong to that payment intent.", "payment_intent")
        return charge
    if not params.get("payment_intent"):
        raise invalid(
            "One of the following params should be provided for this request: payment_intent or charge.",
            "charge",
            "parameter_missing",
        )
    intent = ctx.need(params["payment_intent"], "payment_intent", param="payment_intent")
    if intent["status"] != "succeeded":
        raise invalid(
            f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.", "payment_intent"
        )
    return ctx.need(intent["latest_charge"], "charge")


def make(ctx: Context, charge: Json, params: Json) -> Json:
    """Refunds what is asked, or all that is left. Raises invalid for more than that, and for what was never paid."""
    if not charge["paid"]:
        raise invalid(f"Charge {charge['id']} was not paid and cannot be refunded.", "charge", "charge_not_refundable")
    left = charge["amount_captured"] - charge["amount_refunded"]
    if charge["disputed"] and not charge.get("_refundable_dispute"):
        raise invalid(f"Charge {charge['id']} has been charged back; cannot issue a refund.", code="charge_disputed")
    if left == 0:
        raise invalid(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    amount = left if params.get("amount") is None else params["amount"]
    if amount < 1:
        raise invalid("This value must be greater than or equal to 1.", "amount", "parameter_invalid_integer")
    currency = charge["currency"]
    if amount > left:
        raise invalid(
            f"Refund amount ({shown(amount, currency)}) is greater than unrefunded amount on charge"
            f" ({shown(left, currency)})",
            "amount",
        )
    method = ctx.need(charge["payment_method"], "payment_method")
    later = card_of(method).refund
    now = ctx.now_of(charge["customer"])
    refund: Json = {
        "id": ids.new("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge["id"],
        "created": now,
        "currency": currency,
        "customer": charge["customer"],
        "customer_account": None,
        "destination_details": {
            "card": {
                "reference": None,
                "reference_status": "pending",
                "reference_type": "acquirer_reference_number",
                "type": "refund",
            },
            "type": "card",
        },
        "metadata": params.get("metadata") or {},
        "payment_intent": charge["payment_intent"],
        "payment_method": method["id"],
        "reason": params.get("reason"),
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "pending" if later == "pending" else "succeeded",
        "transfer_reversal": None,
    }
    ctx.create(refund, "refund.created")
    _count(ctx, charge["id"], amount, refund)
    if later is not None:
        customer = ctx.store.get(charge["customer"], "customer") if charge["customer"] else None
        ctx.store.schedule(refund["id"], "refund_settles", (customer or {}).get("test_clock"), now + _SETTLES_SECONDS)
    return refund


# How long after it was made a refund to the cards for later refunds succeeds or fails.
_SETTLES_SECONDS = 60


def _count(ctx: Context, charge_id: str, amount: int, refund: Json) -> None:
    before = ctx.need(charge_id, "charge")
    total = before["amount_refunded"] + amount
    others = [one for one in before["refunds"]["data"] if one["id"] != refund["id"]]
    after = before | {
        "amount_refunded": total,
        "refunded": total == before["amount_captured"],
        "refunds": before["refunds"] | {"data": [refund, *others]},
    }
    ctx.save(after, "charge.refunded" if amount > 0 else None, before)


def settle_due(ctx: Context, refund_id: str) -> None:
    """What the cards for refunds that settle later do (https://docs.stripe.com/testing#refunds)."""
    before = ctx.need(refund_id, "refund")
    method = ctx.need(before["payment_method"], "payment_method")
    if before["status"] == "pending":
        after = before | {"status": "succeeded"}
        ctx.save(after, "refund.updated", before)
        ctx.emit("charge.refund.updated", after, {"status": "pending"})
        return
    if card_of(method).refund != "fails":
        return
    after = before | {"status": "failed", "failure_reason": "unknown", "failure_balance_transaction": None}
    ctx.save(after)
    _count(ctx, before["charge"], -before["amount"], after)
    for event in ("refund.failed", "refund.updated", "charge.refund.updated"):
        ctx.emit(event, after, None if event == "refund.failed" else {"status": "succeeded"})


@get("/v1/refunds/{refund}")
def retrieve(ctx: Context, params: Json, refund: str) -> Json:
    return ctx.need(refund, "refund")


@post("/v1/refunds/{refund}", {"metadata": metadata})
def update(ctx: Context, params: Json, refund: str) -> Json:
    before = ctx.need(refund, "refund")
    after = ctx.save(apply(before, params, ()), "refund.updated", before)
    ctx.emit("charge.refund.updated", after, events.difference(before, after))
    return after


@listing("/v1/refunds", {"charge": text, "payment_intent": text, "created": TIME_RANGE})
def listed(ctx: Context, params: Json) -> Json:
    where: list[Condition] = []
    if params.get("charge"):
        where.append(equals("ref", params["charge"]))
    if params.get("payment_intent"):
        where.append(equals("payment_intent", params["payment_intent"]))
    return page(ctx, "refund", params, "/v1/refunds", where)


@listing("/v1/charges/{charge}/refunds")
def listed_of_charge(ctx: Context, params: Json, charge: str) -> Json:
    ctx.need(charge, "charge")
    return page(ctx, "refund", params, f"/v1/charges/{charge}/refunds", [equals("ref", charge)])
