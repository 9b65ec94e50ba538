"""Disputes: a charge that its payer's bank took back, until it is won or lost."""

from __future__ import annotations

from . import ids
from .context import Context
from .errors import ApiError, invalid
from .fields import merged_metadata
from .lists import Condition, equals, page
from .params import TIME_RANGE, boolean, metadata, record, text
from .periods import DAY
from .routing import get, listing, post
from .store import Json

_EVIDENCE = (
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
)
_NETWORK_CODES = {"fraudulent": "10.4", "product_not_received": "13.1", "general": "10"}
_ANSWER_DAYS = 9
REASONS = (
    "credit_not_processed",
    "duplicate",
    "fraudulent",
    "general",
    "product_not_received",
    "product_unacceptable",
    "subscription_canceled",
    "unrecognized",
)


def make(ctx: Context, charge: Json, *, reason: str, amount: int | None = None, inquiry: bool = False) -> Json:
    """Opens a dispute of a charge with its events; the money is withdrawn unless it is an inquiry. Raises invalid."""
    if not charge["paid"] or charge["disputed"]:
        raise invalid(f"Charge {charge['id']} is not paid, or is disputed already.", "charge")
    asked = charge["amount"] if amount is None else amount
    if not 1 <= asked <= charge["amount"]:
        raise invalid("The disputed amount is between 1 and the charge's.", "amount")
    now = ctx.now_of(charge["customer"])
    brand = charge["payment_method_details"]["card"]["brand"]
    dispute: Json = {
        "id": ids.new("du"),
        "object": "dispute",
        "amount": asked,
        "balance_transactions": [],
        "charge": charge["id"],
        "created": now,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {**dict.fromkeys(_EVIDENCE), "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": now + _ANSWER_DAYS * DAY,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        "is_charge_refundable": inquiry,
        "livemode": False,
        "metadata": {},
        "network_reason_code": _NETWORK_CODES.get(reason),
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": brand,
                "case_type": "inquiry" if inquiry else "chargeback",
                "network": brand,
                "network_reason_code": _NETWORK_CODES.get(reason),
            },
            "type": "card",
        },
        "reason": reason,
        "status": "warning_needs_response" if inquiry else "needs_response",
        "_customer": charge["customer"],
    }
    ctx.store.put(charge | {"disputed": True, "_refundable_dispute": inquiry})
    ctx.create(dispute)
    _tell(ctx, "charge.dispute.created", dispute)
    if not inquiry:
        _tell(ctx, "charge.dispute.funds_withdrawn", dispute)
    return dispute


def _tell(ctx: Context, event: str, dispute: Json, previous: Json | None = None) -> None:
    """A dispute names no customer, but its events tell the time of the customer's clock."""
    customer = ctx.store.get(dispute["_customer"], "customer") if dispute["_customer"] else None
    ctx.emit(event, dispute | {"_clock": (customer or {}).get("test_clock")}, previous)


def close(ctx: Context, before: Json, status: str) -> Json:
    """Ends a dispute as `won`, `lost` or, for an inquiry, `warning_closed`. Raises when it has ended."""
    if before["status"] in ("won", "lost", "warning_closed"):
        raise ApiError(f"This dispute is closed already: {before['status']}.", code="dispute_already_closed")
    if (status == "warning_closed") != before["status"].startswith("warning"):
        raise invalid("Inquiries end as warning_closed, and only they.", "status")
    after = before | {"status": status, "is_charge_refundable": status == "warning_closed"}
    ctx.save(after)
    if status != "lost":
        charge = ctx.need(before["charge"], "charge")
        ctx.store.put(charge | {"disputed": status == "won", "_refundable_dispute": True})
    _tell(ctx, "charge.dispute.closed", after)
    if status == "won":
        _tell(ctx, "charge.dispute.funds_reinstated", after)
    return after


@get("/v1/disputes/{dispute}")
def retrieve(ctx: Context, params: Json, dispute: str) -> Json:
    return ctx.need(dispute, "dispute")


@post(
    "/v1/disputes/{dispute}",
    {"evidence": record(dict.fromkeys(_EVIDENCE, text)), "metadata": metadata, "submit": boolean},
)
def update(ctx: Context, params: Json, dispute: str) -> Json:
    """Takes evidence. The texts `winning_evidence` and `losing_evidence` decide at once, as in test mode."""
    before = ctx.need(dispute, "dispute")
    after = dict(before)
    if "metadata" in params:
        after["metadata"] = merged_metadata(before["metadata"], params["metadata"])
    given = params.get("evidence") or {}
    if given:
        if before["status"] not in ("needs_response", "warning_needs_response"):
            raise invalid("This dispute does not take evidence any more.", "evidence")
        after["evidence"] = before["evidence"] | given
        after["evidence_details"] = before["evidence_details"] | {"has_evidence": True}
    if given and params.get("submit", True):
        count = before["evidence_details"]["submission_count"] + 1
        details = {"submission_count": count, "submission_method": "manual"}
        after["evidence_details"] = after["evidence_details"] | details
        after["status"] = "warning_under_review" if before["status"].startswith("warning") else "under_review"
    ctx.save(after)
    _tell(ctx, "charge.dispute.updated", after, {"status": before["status"]})
    verdict = {"winning_evidence": "won", "losing_evidence": "lost"}.get(given.get("uncategorized_text", ""))
    if verdict is not None and after["status"] == "under_review":
        return close(ctx, after, verdict)
    return after


@post("/v1/disputes/{dispute}/close")
def close_route(ctx: Context, params: Json, dispute: str) -> Json:
    """Accepts the dispute: it is lost."""
    found = ctx.need(dispute, "dispute")
    return close(ctx, found, "warning_closed" if found["status"].startswith("warning") else "lost")


@listing("/v1/disputes", {"charge": text, "payment_intent": text, "created": TIME_RANGE})
def listed(ctx: Context, params: Json) -> Json:
    where: list[Condition] = []
    if params.get("charge"):
        where.append(equals("ref", params["charge"]))
    if params.get("payment_intent"):
        where.append(equals("payment_intent", params["payment_intent"]))
    return page(ctx, "dispute", params, "/v1/disputes", where)
