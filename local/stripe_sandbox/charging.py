"""Charging a card: the payment intent, its charge, and what the card and its bank make of it."""

from __future__ import annotations

from . import challenges, disputes, ids
from .context import Context
from .errors import ApiError
from .lists import inline
from .payment_methods import card_of, refusal_of
from .store import Json, public


def make(
    ctx: Context,
    *,
    amount: int,
    currency: str,
    customer: str | None,
    description: str | None,
    meta: dict[str, str],
    invoice: str | None = None,
) -> Json:
    intent_id = ids.new("pi")
    intent: Json = {
        "id": intent_id,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic",
        "client_secret": f"{intent_id}_secret_{ids.new('s')[2:]}",
        "confirmation_method": "automatic",
        "created": ctx.now_of(customer),
        "currency": currency,
        "customer": customer,
        "customer_account": None,
        "description": description,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": meta,
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_options": {
            "card": {"installments": None, "network": None, "request_three_d_secure": "automatic"}
        },
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": None,
        "setup_future_usage": None,
        "shipping": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
        "_invoice": invoice,
    }
    return ctx.create(intent, "payment_intent.created")


def _charge(ctx: Context, intent: Json, method: Json, refusal: ApiError | None) -> Json:
    card = card_of(method)
    failed = refusal is not None
    charge_id = ids.new("ch")
    shown = method["card"]
    decline = refusal.more.get("decline_code") if refusal else None
    return {
        "id": charge_id,
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0 if failed else intent["amount"],
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "calculated_statement_descriptor": "SANDBOX",
        "captured": not failed,
        "created": ctx.now_of(intent["customer"]),
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": refusal.code if refusal else None,
        "failure_message": refusal.message if refusal else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": intent["metadata"],
        "on_behalf_of": None,
        "outcome": {
            "advice_code": "try_again_later" if failed else None,
            "network_advice_code": None,
            "network_decline_code": None,
            "network_status": "declined_by_network" if failed else "approved_by_network",
            "reason": decline or (refusal.code if refusal else None),
            "risk_level": "normal",
            "risk_score": 20,
            "seller_message": "The bank declined the payment." if failed else "Payment complete.",
            "type": "issuer_declined" if failed else "authorized",
        },
        "paid": not failed,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {
            "card": {
                "amount_authorized": None if failed else intent["amount"],
                "authorization_code": None,
                "brand": card.brand,
                "checks": shown["checks"],
                "country": card.country,
                "exp_month": shown["exp_month"],
                "exp_year": shown["exp_year"],
                "fingerprint": shown["fingerprint"],
                "funding": card.funding,
                "installments": None,
                "last4": card.last4,
                "mandate": None,
                "network": card.brand,
                "network_token": {"used": False},
                "network_transaction_id": None,
                "regulated_status": "unregulated",
                "three_d_secure": None,
                "wallet": None,
            },
            "type": "card",
        },
        "receipt_email": intent["receipt_email"],
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "refunds": inline([], f"/v1/charges/{charge_id}/refunds"),
        "review": None,
        "shipping": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "failed" if failed else "succeeded",
        "transfer_data": None,
        "transfer_group": None,
    }


def confirm(ctx: Context, intent: Json, method: Json, *, on_session: bool = False) -> ApiError | None:
    """Charges the card. Changes the intent in place; returns the refusal, if the card or its bank refused."""
    refusal = refusal_of(method, on_session=on_session)
    if refusal is not None and refusal.code == "authentication_required":
        intent |= {
            "status": "requires_action",
            "payment_method": method["id"],
            "next_action": challenges.next_action(ctx, "payment_intent", intent, method),
        }
        ctx.save(intent, "payment_intent.requires_action")
        return refusal
    intent["next_action"] = None
    charge = _charge(ctx, intent, method, refusal)
    intent["latest_charge"] = charge["id"]
    if refusal is None:
        intent |= {
            "status": "succeeded",
            "payment_method": method["id"],
            "amount_received": intent["amount"],
            "last_payment_error": None,
        }
        ctx.create(charge, "charge.succeeded")
        ctx.save(intent, "payment_intent.succeeded")
        _dispute(ctx, charge, card_of(method).disputes)
        return None
    intent["status"] = "requires_payment_method"
    intent["payment_method"] = None
    intent["last_payment_error"] = {
        "charge": charge["id"],
        "code": refusal.code,
        "doc_url": refusal.body(None)["error"].get("doc_url"),
        "message": refusal.message,
        "payment_method": public(method),
        "type": refusal.kind,
        **({"decline_code": refusal.more["decline_code"]} if "decline_code" in refusal.more else {}),
    }
    ctx.create(charge, "charge.failed")
    ctx.save(intent, "payment_intent.payment_failed")
    refusal.more |= {"charge": charge["id"]}
    return refusal


def _dispute(ctx: Context, charge: Json, reason: str | None) -> None:
    """The test cards that dispute every charge."""
    if reason is not None:
        inquiry = reason == "inquiry"
        disputes.make(ctx, charge, reason="general" if inquiry else reason, inquiry=inquiry)


def fail_without_method(ctx: Context, intent: Json) -> None:
    """A charge that could not be tried: the customer has no default card."""
    intent["last_payment_error"] = {
        "code": "missing",
        "message": "The customer has no default payment method to charge.",
        "type": "invalid_request_error",
    }
    ctx.save(intent, "payment_intent.payment_failed")


def fail_authentication(ctx: Context, intent: Json) -> None:
    """The person did not pass their bank's challenge. Changes the intent in place."""
    intent |= {
        "status": "requires_payment_method",
        "next_action": None,
        "payment_method": None,
        "last_payment_error": {
            "code": "payment_intent_authentication_failure",
            "message": challenges.FAILED,
            "payment_method": public(ctx.need(intent["payment_method"], "payment_method")),
            "type": "card_error",
        },
    }
    ctx.save(intent, "payment_intent.payment_failed")
