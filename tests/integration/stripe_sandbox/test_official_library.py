"""The official library, unmodified, through what a product of plans and meters asks of Stripe."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
import stripe

from .conftest import Running

DAY = 86_400


@pytest.fixture
async def api(shop: Running) -> AsyncIterator[Any]:
    http = stripe.HTTPXClient(timeout=httpx.Timeout(30))
    yield stripe.StripeClient("sk_test_x", base_addresses={"api": shop.url}, http_client=http).v1
    await http.close_async()  # type: ignore[no-untyped-call]


async def _advance(api: Any, clock: str, to: int) -> None:
    await api.test_helpers.test_clocks.advance_async(clock, {"frozen_time": to})
    async with asyncio.timeout(30):
        while (await api.test_helpers.test_clocks.retrieve_async(clock)).status != "ready":
            pass  # each question is a turn of the clock's own loop


async def test_a_catalog_is_pushed_and_found_again(api: Any) -> None:
    stamp = time.monotonic_ns()
    meter = await api.billing.meters.create_async(
        {
            "display_name": "Downloads",
            "event_name": f"downloads_{stamp}",
            "default_aggregation": {"formula": "sum"},
            "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
            "value_settings": {"event_payload_key": "value"},
        }
    )
    price = await api.prices.create_async(
        {
            "product_data": {"name": "Downloads"},
            "currency": "usd",
            "billing_scheme": "tiered",
            "tiers_mode": "graduated",
            "tiers": [
                {"up_to": 1000, "unit_amount_decimal": Decimal(0)},
                {"up_to": "inf", "unit_amount_decimal": Decimal("0.1")},
            ],
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
            "lookup_key": f"overage_{stamp}",
        }
    )
    found = await api.prices.list_async({"lookup_keys": [f"overage_{stamp}"], "expand": ["data.tiers"]})
    assert [one.id for one in found.data] == [price.id]
    assert found.data[0].tiers[1].unit_amount_decimal == Decimal("0.1")
    assert found.data[0].tiers[1].up_to is None
    names = [one.event_name async for one in (await api.billing.meters.list_async({"limit": 1})).auto_paging_iter()]
    assert f"downloads_{stamp}" in names
    hook = await api.webhook_endpoints.create_async(
        {"url": "http://127.0.0.1:9/hook", "enabled_events": ["invoice.paid"], "metadata": {"by": "catalog"}}
    )
    assert hook.secret.startswith("whsec_")
    portal = await api.billing_portal.configurations.create_async(
        {
            "features": {
                "invoice_history": {"enabled": True},
                "payment_method_update": {"enabled": True},
                "subscription_cancel": {"enabled": True, "mode": "at_period_end"},
                "subscription_update": {
                    "enabled": True,
                    "default_allowed_updates": ["price"],
                    "proration_behavior": "always_invoice",
                    "products": [{"product": price.product, "prices": [price.id]}],
                },
            }
        }
    )
    assert portal.features.subscription_update.products[0].prices == [price.id]


async def test_a_life_with_meter_discount_change_refund_and_end(api: Any) -> None:
    start = 1_900_000_000
    clock = (await api.test_helpers.test_clocks.create_async({"frozen_time": start})).id
    customer = await api.customers.create_async(
        {
            "test_clock": clock,
            "email": "ada@example.com",
            "payment_method": "pm_card_visa",
            "invoice_settings": {"default_payment_method": "pm_card_visa"},
        }
    )
    stamp = time.monotonic_ns()
    meter = await api.billing.meters.create_async(
        {"display_name": "Uses", "event_name": f"uses_{stamp}", "default_aggregation": {"formula": "sum"}}
    )
    product = (await api.products.create_async({"name": "Pro"})).id
    monthly = {"interval": "month"}
    small, big = [
        await api.prices.create_async(
            {"product": product, "currency": "usd", "unit_amount": amount, "recurring": monthly}
        )
        for amount in (1500, 4500)
    ]
    uses = await api.prices.create_async(
        {
            "product": product,
            "currency": "usd",
            "unit_amount_decimal": Decimal("0.25"),
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
        }
    )
    coupon = await api.coupons.create_async({"percent_off": 20, "duration": "once"})
    code = await api.promotion_codes.create_async(
        {"promotion": {"type": "coupon", "coupon": coupon.id}, "code": f"TWENTY{stamp}"}
    )
    subscription = await api.subscriptions.create_async(
        {
            "customer": customer.id,
            "items": [{"price": small.id}, {"price": uses.id}],
            "discounts": [{"promotion_code": code.id}],
            "expand": ["latest_invoice.payments", "latest_invoice.discounts"],
        }
    )
    first = subscription.latest_invoice
    assert (first.amount_paid, first.discounts[0].promotion_code) == (1200, code.id)
    event = {"event_name": f"uses_{stamp}", "payload": {"stripe_customer_id": customer.id, "value": "102"}}
    await _advance(api, clock, start + 10 * DAY)
    await api.billing.meter_events.create_async({**event, "identifier": f"one-{stamp}"})
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        await api.billing.meter_events.create_async({**event, "identifier": f"one-{stamp}"})
    item = next(one for one in subscription.items.data if one.price.id == small.id)
    change = {"items": [{"id": item.id, "price": big.id}], "proration_behavior": "always_invoice"}
    preview = await api.invoices.create_preview_async(
        {"subscription": subscription.id, "subscription_details": {**change, "proration_date": start + 10 * DAY}}
    )
    changed = await api.subscriptions.update_async(
        subscription.id, {**change, "proration_date": start + 10 * DAY, "expand": ["latest_invoice.payments"]}
    )
    assert changed.latest_invoice.amount_paid == preview.amount_due > 0
    await _advance(api, clock, item.current_period_end + 7200)
    renewal = (await api.invoices.list_async({"subscription": subscription.id, "limit": 1})).data[0]
    assert (renewal.status, renewal.amount_paid) == ("paid", 4500 + 26)  # 102 units at 0.25 cents
    intent = first.payments.data[0].payment.payment_intent
    refund = await api.refunds.create_async({"payment_intent": intent, "amount": 200})
    assert (refund.status, refund.amount) == ("succeeded", 200)
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        await api.refunds.create_async({"payment_intent": intent, "amount": 1001})
    ending = await api.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})
    assert ending.cancel_at == ending.items.data[0].current_period_end
    with pytest.raises(stripe.InvalidRequestError):
        await api.customers.update_async(customer.id, {"colour": "red"})
    ended = await api.subscriptions.cancel_async(subscription.id, {"invoice_now": True, "prorate": True})
    assert ended.status == "canceled"
    summary = await api.billing.meters.event_summaries.list_async(
        meter.id, {"customer": customer.id, "start_time": start // 60 * 60, "end_time": start // 60 * 60 + 30 * DAY}
    )
    assert summary.data[0].aggregated_value == 102


async def test_a_dispute_and_a_setup_intent_go_through_the_library(api: Any) -> None:
    intent = await api.payment_intents.create_async(
        {"amount": 900, "currency": "usd", "payment_method": "pm_card_createDispute", "confirm": True}
    )
    dispute = (await api.disputes.list_async({"payment_intent": intent.id})).data[0]
    closed = await api.disputes.update_async(dispute.id, {"evidence": {"uncategorized_text": "winning_evidence"}})
    assert closed.status == "won"
    customer = await api.customers.create_async({})
    setup = await api.setup_intents.create_async(
        {"customer": customer.id, "payment_method": "pm_card_visa", "confirm": True, "usage": "off_session"}
    )
    assert setup.status == "succeeded"
    cards = await api.customers.payment_methods.list_async(customer.id)
    assert [card.id for card in cards.data] == [setup.payment_method]
