"""Stripe's meters, as part of `StripePayments`: what sells units, and how many were used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, TypeVar

import stripe

from services.billing.catalog import Catalog
from services.billing.catalog.model import MeteredPrice
from services.billing.domain.metering import Report
from services.billing.ports import UsageRejected
from services.billing.token_bucket import BACKGROUND, PEOPLE

CUSTOMER, VALUE = "stripe_customer_id", "value"  # the names under which a meter event carries them
T = TypeVar("T")


def event_name(catalog: Catalog, meter: str) -> str:
    return f"tollway_{catalog.product.name.lower().replace(' ', '_')}_{meter}"


class MeterCalls:
    _client: stripe.StripeClient

    async def _call(
        self, name: str, call: Callable[[], Awaitable[T]], priority: int = PEOPLE, *, stored_failure: bool = False
    ) -> T:
        raise NotImplementedError

    async def report_usage(self, report: Report, catalog: Catalog) -> None:
        params: Any = {
            "event_name": event_name(catalog, report.meter),
            "identifier": report.identifier,
            "payload": {CUSTOMER: report.customer_id, VALUE: str(report.units)},
            "timestamp": int(report.stamp.timestamp()),
        }
        try:
            await self._call(
                "billing.meter_events.create",
                lambda: self._client.v1.billing.meter_events.create_async(params),
                BACKGROUND,
            )
        except stripe.InvalidRequestError as error:
            # https://docs.stripe.com/api/billing/meter-event: an identifier counts once within at least 24 hours.
            if error.code == "resource_already_exists" or "already exists with identifier" in str(error):
                return
            raise UsageRejected(error.code or "invalid_request") from error

    async def _push_meter(self, catalog: Catalog, meter: str, changes: list[str]) -> str:
        meters = self._client.v1.billing.meters
        wanted = event_name(catalog, meter)
        query: Any = {"status": "active", "limit": 100}
        page = await self._call("billing.meters.list", lambda: meters.list_async(query))
        async for found in page.auto_paging_iter():
            if found.event_name == wanted:
                return str(found.id)
        new: Any = {
            "display_name": f"{catalog.product.name} {meter.replace('_', ' ')}",
            "event_name": wanted,
            "default_aggregation": {"formula": "sum"},
            "customer_mapping": {"type": "by_id", "event_payload_key": CUSTOMER},
            "value_settings": {"event_payload_key": VALUE},
        }
        made = await self._call("billing.meters.create", lambda: meters.create_async(new))
        changes.append(f"meter {wanted} created ({made.id})")
        return str(made.id)

    async def _push_metered(
        self, product_id: str, tier: str, price: MeteredPrice, meter_id: str, changes: list[str]
    ) -> str:
        """A graduated price: the included units cost nothing, each further one its overage price."""
        prices = self._client.v1.prices
        query: Any = {"lookup_keys": [price.lookup_key], "active": True, "limit": 1, "expand": ["data.tiers"]}
        page = await self._call("prices.list", lambda: prices.list_async(query))
        for found in page.data:
            if _terms(found.to_dict(for_json=True)) == (price.currency, price.interval, meter_id, _steps(price)):
                return str(found.id)
        tiers: Any = [{"up_to": limit, "unit_amount_decimal": amount} for limit, amount in _steps(price)]
        new: Any = {
            "product": product_id,
            "currency": price.currency,
            "recurring": {"interval": price.interval, "usage_type": "metered", "meter": meter_id},
            "billing_scheme": "tiered",
            "tiers_mode": "graduated",
            "tiers": tiers,
            "lookup_key": price.lookup_key,
            "transfer_lookup_key": True,
            "metadata": {"tollway_tier": tier},
        }
        created = await self._call("prices.create", lambda: prices.create_async(new))
        changes.append(f"price {price.lookup_key} created ({created.id})")
        return str(created.id)


def _steps(price: MeteredPrice) -> list[tuple[int | str, str]]:
    """Up to which unit one costs how many minor units."""
    steps: list[tuple[int | str, str]] = [(price.included, "0")] if price.included else []
    return [*steps, ("inf", _plain(price.unit_price))]


def _terms(found: dict[str, Any]) -> tuple[str, str, str, list[tuple[int | str, str]]]:
    recurring = found.get("recurring") or {}
    tiers = [(each["up_to"] or "inf", _plain(each["unit_amount_decimal"] or "0")) for each in found.get("tiers") or []]
    return found["currency"], recurring.get("interval", ""), recurring.get("meter") or "", tiers


def _plain(number: str) -> str:
    """A decimal in the one way to write it, so that two of them can be compared."""
    return format(Decimal(number).normalize(), "f")
