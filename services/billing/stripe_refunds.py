"""Stripe's side of refunds and disputes, as part of `StripePayments`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from typing import Any, TypeVar

import stripe

from services.billing.domain.refund import Seen
from services.billing.ports import BaseFee, RefundRejected
from services.billing.token_bucket import BACKGROUND, PEOPLE

REFUND_KEY = "tollway_refund_id"  # metadata by which our refunds are known
T = TypeVar("T")


class RefundCalls:
    _client: stripe.StripeClient

    async def _call(
        self, name: str, call: Callable[[], Awaitable[T]], priority: int = PEOPLE, *, stored_failure: bool = False
    ) -> T:
        raise NotImplementedError

    async def cancel_subscription(self, subscription_id: str, key: str) -> None:
        subscriptions = self._client.v1.subscriptions
        found = await self._call("subscriptions.retrieve", lambda: subscriptions.retrieve_async(subscription_id))
        if found.status in {"canceled", "incomplete_expired"}:
            return
        # Units that are sold stay owed: what the meters have heard of is on a last invoice, and nothing is credited.
        params: Any = {"invoice_now": True, "prorate": False}
        try:
            await self._call(
                "subscriptions.cancel",
                lambda: subscriptions.cancel_async(subscription_id, params, {"idempotency_key": key}),
            )
        except stripe.InvalidRequestError:
            again = await self._call("subscriptions.retrieve", lambda: subscriptions.retrieve_async(subscription_id))
            if again.status != "canceled":  # else somebody was faster
                raise

    async def base_fee(self, invoice_id: str, price_ids: Collection[str]) -> BaseFee | None:
        params: Any = {"expand": ["payments"]}
        found = await self._call(
            "invoices.retrieve", lambda: self._client.v1.invoices.retrieve_async(invoice_id, params)
        )
        invoice = found.to_dict(for_json=True)
        paid = (p for p in (invoice.get("payments") or {}).get("data") or [] if p.get("status") == "paid")
        intent = next((p["payment"].get("payment_intent") for p in paid if p.get("payment")), None)
        amount = sum(_amount(line) for line in invoice["lines"]["data"] if _price(line) in price_ids)
        if not intent or amount <= 0:
            return None
        intent_id = intent if isinstance(intent, str) else str(intent["id"])
        return BaseFee(intent_id, min(amount, int(invoice["amount_paid"])), invoice["currency"])

    async def refund(self, payment_intent: str, amount: int, refund_id: str, key: str) -> Seen:
        # Look before repeating: an answer may have been lost, and a key is forgotten after a day.
        for each in await self._refunds({"payment_intent": payment_intent, "limit": 100}):
            if (each.get("metadata") or {}).get(REFUND_KEY) == refund_id and each["status"] != "failed":
                return await self._seen_refund(each)
        params: Any = {
            "payment_intent": payment_intent,
            "amount": amount,
            "reason": "requested_by_customer",
            "metadata": {REFUND_KEY: refund_id},
        }
        try:
            made = await self._call(
                "refunds.create",
                lambda: self._client.v1.refunds.create_async(params, {"idempotency_key": key}),
                stored_failure=True,
            )
        except (stripe.InvalidRequestError, stripe.CardError) as error:
            raise RefundRejected(error.code or "invalid_request") from error
        return await self._seen_refund(made.to_dict(for_json=True))

    async def reversals(self, charge_id: str) -> list[Seen]:
        refunds = await self._refunds({"charge": charge_id, "limit": 100})
        query: Any = {"charge": charge_id, "limit": 100}
        page = await self._call("disputes.list", lambda: self._client.v1.disputes.list_async(query), BACKGROUND)
        disputes = [each.to_dict(for_json=True) for each in page.data]
        if not refunds and not disputes:
            return []
        customer = await self.customer_of_charge(charge_id)
        invoice = await self._invoice_of((refunds + disputes)[0].get("payment_intent"))
        return [_seen("refund", each, invoice, customer) for each in refunds] + [
            _seen("dispute", each, invoice, customer) for each in disputes
        ]

    async def customer_of_charge(self, charge_id: str) -> str:
        try:
            charge = await self._call(
                "charges.retrieve", lambda: self._client.v1.charges.retrieve_async(charge_id), BACKGROUND
            )
        except stripe.InvalidRequestError as error:
            if error.http_status == 404:
                return ""
            raise
        return _text(charge.to_dict(for_json=True).get("customer"))

    async def _refunds(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        params: Any = query
        page = await self._call("refunds.list", lambda: self._client.v1.refunds.list_async(params))
        return [each.to_dict(for_json=True) for each in page.data]

    async def _seen_refund(self, refund: dict[str, Any]) -> Seen:
        charge_id = _text(refund.get("charge"))
        customer = await self.customer_of_charge(charge_id)
        return _seen("refund", refund, await self._invoice_of(refund.get("payment_intent")), customer)

    async def _invoice_of(self, payment_intent: Any) -> str:
        intent_id = _text(payment_intent)
        if not intent_id:
            return ""
        query: Any = {"payment": {"type": "payment_intent", "payment_intent": intent_id}, "limit": 1}
        page = await self._call("invoice_payments.list", lambda: self._client.v1.invoice_payments.list_async(query))
        return next((_text(each.to_dict(for_json=True).get("invoice")) for each in page.data), "")


def _seen(kind: str, data: dict[str, Any], invoice_id: str, customer_id: str) -> Seen:
    return Seen(
        id=data["id"],
        kind=kind,
        charge_id=_text(data.get("charge")),
        invoice_id=invoice_id,
        customer_id=customer_id,
        amount=data["amount"],
        currency=data["currency"],
        status=data.get("status") or "",
        reason=data.get("reason") or "",
        policy_refund_id=str((data.get("metadata") or {}).get(REFUND_KEY, "")) if kind == "refund" else "",
        create_time=datetime.fromtimestamp(data["created"], UTC),
    )


def _price(line: dict[str, Any]) -> str:
    """The price of a line that charges a whole period; empty for a proration."""
    item = (line.get("parent") or {}).get("subscription_item_details") or {}
    if not item or item.get("proration"):
        return ""
    return _text(((line.get("pricing") or {}).get("price_details") or {}).get("price"))


def _amount(line: dict[str, Any]) -> int:
    """With its discounts, and with the tax that is not in it already."""
    discounts = sum(int(each["amount"]) for each in line.get("discount_amounts") or [])
    taxes = sum(int(each["amount"]) for each in line.get("taxes") or [] if each.get("tax_behavior") == "exclusive")
    return int(line["amount"]) - discounts + taxes


def _text(value: Any) -> str:
    """The id of a field that may be null, an id or the expanded object."""
    return "" if value is None else value if isinstance(value, str) else str(value["id"])
