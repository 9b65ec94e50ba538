"""Stripe's side of plan changes and cancellations, as part of `StripePayments`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import stripe

from services.billing.domain.plan_change import PlanChange, Preview
from services.billing.errors import PaymentDeclined
from services.billing.ports import Upcoming
from services.billing.token_bucket import BACKGROUND, PEOPLE

T = TypeVar("T")
# The credit and the charge are on an invoice of their own, at once: what the preview shows is what is paid.
_PRORATION = {"proration_behavior": "always_invoice"}


class ChangeCalls:
    _client: stripe.StripeClient

    async def _call(
        self, name: str, call: Callable[[], Awaitable[T]], priority: int = PEOPLE, *, stored_failure: bool = False
    ) -> T:
        raise NotImplementedError

    async def preview_change(self, change: PlanChange) -> Preview:
        details: dict[str, Any] = {"items": await self._items(change), **_PRORATION}
        if change.proration_time is not None:
            details["proration_date"] = int(change.proration_time.timestamp())
        params: Any = {"subscription": change.subscription_id, "subscription_details": details}
        invoices = self._client.v1.invoices
        made = await self._call("invoices.create_preview", lambda: invoices.create_preview_async(params))
        invoice = made.to_dict(for_json=True)
        lines = tuple((line.get("description") or "", int(line["amount"])) for line in invoice["lines"]["data"])
        return Preview(int(invoice["total"]), int(invoice["amount_due"]), invoice["currency"], lines)

    async def upcoming(self, subscription_id: str) -> Upcoming | None:
        params: Any = {"subscription": subscription_id}
        invoices = self._client.v1.invoices
        try:
            made = await self._call(
                "invoices.create_preview", lambda: invoices.create_preview_async(params), BACKGROUND
            )
        except stripe.InvalidRequestError:  # invoice_upcoming_none: it ends before
            return None
        return Upcoming(int(made.amount_due), made.currency)

    async def change_plan(self, change: PlanChange) -> None:
        items = await self._items(change)
        if not items:
            return
        params: Any = {"items": items, "payment_behavior": "error_if_incomplete", **_PRORATION}
        if change.proration_time is not None:
            params["proration_date"] = int(change.proration_time.timestamp())
        subscriptions = self._client.v1.subscriptions
        try:
            await self._call("subscriptions.update", lambda: subscriptions.update_async(change.subscription_id, params))
        except stripe.CardError as error:
            raise PaymentDeclined("The card was declined; the plan stays as it was.") from error

    async def set_cancellation(self, subscription_id: str, *, cancel: bool) -> None:
        subscriptions = self._client.v1.subscriptions
        found = await self._call("subscriptions.retrieve", lambda: subscriptions.retrieve_async(subscription_id))
        if cancel == bool(found.cancel_at_period_end or found.cancel_at):
            return
        # Flexible billing may have set `cancel_at` alone: taking it back clears whichever it is.
        by_time = not cancel and not found.cancel_at_period_end
        params: Any = {"cancel_at": ""} if by_time else {"cancel_at_period_end": cancel}
        await self._call("subscriptions.update", lambda: subscriptions.update_async(subscription_id, params))

    async def _items(self, change: PlanChange) -> list[dict[str, Any]]:
        """What differs from the subscription as it is; empty when nothing does."""
        subscriptions = self._client.v1.subscriptions
        found = await self._call("subscriptions.retrieve", lambda: subscriptions.retrieve_async(change.subscription_id))
        wanted: list[dict[str, Any]] = []
        held: set[str] = set()
        for item in found.to_dict(for_json=True)["items"]["data"]:
            price = item["price"]
            held.add(price["id"])
            if (price.get("recurring") or {}).get("usage_type") == "metered":
                if price["id"] not in change.metered_price_ids:
                    wanted.append({"id": item["id"], "deleted": True})
            elif price["id"] != change.price_id:
                wanted.append({"id": item["id"], "price": change.price_id})
        return wanted + [{"price": each} for each in change.metered_price_ids if each not in held]
