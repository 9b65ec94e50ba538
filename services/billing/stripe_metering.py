"""Stripe's meters, as part of `StripePayments`: what sells units, and how many were used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import stripe

from services.billing.catalog import Catalog
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
