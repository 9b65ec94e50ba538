"""Stripe's objects, cut down to what billing decides on. Paths: API version 2026-10-28.endive."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from services.billing.domain.customer import Customer
from services.billing.domain.subscription import Invoice, Subscription

ACCOUNT_KEY = "tollway_account_id"  # metadata by which our customers are known


def _instant(value: int | None) -> datetime | None:
    return datetime.fromtimestamp(value, UTC) if value else None


def required(value: int) -> datetime:
    return datetime.fromtimestamp(value, UTC)


def _id(value: Any) -> str:
    """The id of a field that may be null, an id or the expanded object."""
    if value is None:
        return ""
    return value if isinstance(value, str) else str(value["id"])


def subscription_of(data: dict[str, Any]) -> Subscription:
    items = data["items"]["data"]
    # The plan's own price; those of metered units come beside it.
    item = next((each for each in items if not _is_metered(each["price"])), items[0])
    price = item["price"]
    return Subscription(
        id=data["id"],
        customer_id=_id(data["customer"]),
        status=data["status"],
        price_id=price["id"],
        lookup_key=price.get("lookup_key") or "",
        interval=(price.get("recurring") or {}).get("interval") or "month",
        create_time=required(data["created"]),
        anchor=required(data["billing_cycle_anchor"]),
        period_start=required(item["current_period_start"]),
        period_end=required(item["current_period_end"]),
        cancel_at_period_end=bool(data["cancel_at_period_end"]),
        cancel_at=_instant(data.get("cancel_at")),
        canceled_at=_instant(data.get("canceled_at")),
        ended_at=_instant(data.get("ended_at")),
        trial_end=_instant(data.get("trial_end")),
        cancel_reason=(data.get("cancellation_details") or {}).get("reason") or "",
    )


def _is_metered(price: dict[str, Any]) -> bool:
    return (price.get("recurring") or {}).get("usage_type") == "metered"


def invoice_of(data: dict[str, Any]) -> Invoice:
    parent = (data.get("parent") or {}).get("subscription_details") or {}
    lines = data.get("lines", {}).get("data") or []
    prices = [((line.get("pricing") or {}).get("price_details") or {}).get("price") for line in lines]
    return Invoice(
        id=data["id"],
        customer_id=_id(data.get("customer")),
        subscription_id=_id(parent.get("subscription")),
        number=data.get("number") or "",
        status=data.get("status") or "draft",
        currency=data["currency"],
        amount_due=data["amount_due"],
        amount_paid=data["amount_paid"],
        attempt_count=data["attempt_count"],
        next_attempt_time=_instant(data.get("next_payment_attempt")),
        hosted_url=data.get("hosted_invoice_url") or "",
        pdf_url=data.get("invoice_pdf") or "",
        customer_email=data.get("customer_email") or "",
        billing_reason=data.get("billing_reason") or "",
        price_id=next((_id(price) for price in prices if price), ""),
        create_time=required(data["created"]),
        paid_time=_instant((data.get("status_transitions") or {}).get("paid_at")),
    )


def customer_of(data: dict[str, Any]) -> Customer:
    metadata = {str(key): str(value) for key, value in (data.get("metadata") or {}).items()}
    named = metadata.pop(ACCOUNT_KEY, "")
    return Customer(data["id"], data.get("email") or "", data.get("name") or "", named, metadata)
