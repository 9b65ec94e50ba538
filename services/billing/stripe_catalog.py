"""What a catalog needs to exist at Stripe: looked for, and made or changed where it differs. Part of `StripePayments`.

Products are known by an id of ours, prices by lookup key, meters by event name, the portal's configuration by its
metadata, the webhook endpoint by its address. So a push that runs again, or died half way, finds what is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, TypeVar

import stripe

from services.billing.catalog import Catalog, Price, Tier
from services.billing.catalog.model import MeteredPrice
from services.billing.ports import Endpoint, Pushed
from services.billing.stripe_metering import CUSTOMER, VALUE, event_name
from services.billing.token_bucket import PEOPLE

T = TypeVar("T")
Call = Callable[..., Awaitable[Any]]


class CatalogCalls:
    _client: stripe.StripeClient

    async def _call(
        self, name: str, call: Callable[[], Awaitable[T]], priority: int = PEOPLE, *, stored_failure: bool = False
    ) -> T:
        raise NotImplementedError

    async def push(
        self, catalog: Catalog, return_url: str, *, endpoint: Endpoint | None = None, dry_run: bool = False
    ) -> Pushed:
        return await _Push(self._client, self._call, catalog, dry_run).run(return_url, endpoint)


class _Push:
    """One push. With `dry_run` it only lists what it would do; ids that do not exist yet are empty then."""

    def __init__(self, client: stripe.StripeClient, call: Call, catalog: Catalog, dry_run: bool) -> None:
        self._v1 = client.v1
        self._call = call
        self._catalog = catalog
        self._dry_run = dry_run
        self._slug = catalog.product.name.lower().replace(" ", "_")
        self._changes: list[str] = []

    async def run(self, return_url: str, endpoint: Endpoint | None) -> Pushed:
        prices: dict[str, str] = {}
        sold: dict[str, list[str]] = {}  # product → its prices that customers may change to
        for name, tier in self._catalog.tiers.items():
            if not tier.prices:
                continue
            there = {price.lookup_key: await self._price_at(price.lookup_key) for price in tier.prices}
            product = await self._product_of(name, tier, [each for each in there.values() if each is not None])
            for price in tier.prices:
                found = there[price.lookup_key]
                price_id = prices[price.lookup_key] = await self._price(product, name, price, found)
                if not tier.grandfathered:
                    # A price cannot leave its product, and the portal offers each with its own.
                    own = str(found.product) if found is not None and found.id == price_id else product
                    sold.setdefault(own, []).append(price_id)
                for metered in self._catalog.metered_prices(name, price):
                    prices[metered.lookup_key] = await self._metered(product, name, metered)
        configuration = await self._portal(_portal(self._catalog, sold, return_url))
        secret = await self._endpoint(endpoint) if endpoint is not None else ""
        return Pushed(prices, configuration, self._changes, secret)

    async def _change(self, what: str, name: str, call: Callable[[], Awaitable[T]]) -> T | None:
        """Does it and notes it; None in a dry run, which only notes it."""
        self._changes.append(what)
        return None if self._dry_run else await self._call(name, call)

    async def _product_of(self, name: str, tier: Tier, there: list[Any]) -> str:
        """The product that the tier's prices belong to. One that was sold before tollway came stays as it is."""
        ours = f"tollway_{self._slug}_{name}"
        theirs = [str(price.product) for price in there if price.product != ours]
        if theirs:
            return theirs[0]
        await self._product(ours, f"{self._catalog.product.name} {tier.name}", tier.description)
        return ours

    async def _product(self, product_id: str, name: str, description: str) -> None:
        products = self._v1.products
        wanted: Any = {"name": name} | ({"description": description} if description else {})
        try:
            found = await self._call("products.retrieve", lambda: products.retrieve_async(product_id))
        except stripe.InvalidRequestError as error:
            if error.http_status != 404:
                raise
            new: Any = {"id": product_id, **wanted}
            await self._change(
                f"create product {product_id} ({name})", "products.create", lambda: products.create_async(new)
            )
            return
        told = [f"{field}: {getattr(found, field)!r} → {value!r}" for field, value in wanted.items()]
        differs = [each for each, (field, value) in zip(told, wanted.items(), strict=True) if found[field] != value]
        if differs:
            await self._change(
                f"update product {product_id} ({'; '.join(differs)})",
                "products.update",
                lambda: products.update_async(product_id, wanted),
            )

    async def _price(self, product: str, tier: str, price: Price, found: Any) -> str:
        terms = (price.amount, price.currency, price.interval)
        was = ""
        if found is not None:
            there = (found.unit_amount, found.currency, found.recurring.interval if found.recurring else "")
            if there == terms:
                return str(found.id)
            was = f", instead of {there[0]} {there[1]} a {there[2]}"
        # A price cannot change at Stripe: a new one takes the lookup key over, who has the old one keeps it.
        new: Any = {
            "product": product,
            "unit_amount": price.amount,
            "currency": price.currency,
            "recurring": {"interval": price.interval},
            "lookup_key": price.lookup_key,
            "transfer_lookup_key": True,
            "metadata": {"tollway_tier": tier},
        }
        what = f"create price {price.lookup_key} ({price.amount} {price.currency} a {price.interval}{was})"
        created = await self._change(what, "prices.create", lambda: self._v1.prices.create_async(new))
        return created.id if created is not None else ""

    async def _price_at(self, lookup_key: str, *expand: str) -> Any:
        query: Any = {"lookup_keys": [lookup_key], "active": True, "limit": 1, "expand": list(expand)}
        page = await self._call("prices.list", lambda: self._v1.prices.list_async(query))
        return page.data[0] if page.data else None

    async def _metered(self, product: str, tier: str, price: MeteredPrice) -> str:
        """A graduated price: the included units cost nothing, each further one its overage price."""
        meter = await self._meter(price.meter)
        found = await self._price_at(price.lookup_key, "data.tiers")
        if found is not None:
            there = _terms(found.to_dict(for_json=True))
            if there == (price.currency, price.interval, meter, _steps(price)):
                return str(found.id)
        new: Any = {
            "product": product,
            "currency": price.currency,
            "billing_scheme": "tiered",
            "tiers_mode": "graduated",
            "tiers": [{"up_to": limit, "unit_amount_decimal": amount} for limit, amount in _steps(price)],
            "recurring": {"interval": price.interval, "usage_type": "metered", "meter": meter},
            "lookup_key": price.lookup_key,
            "transfer_lookup_key": True,
            "metadata": {"tollway_tier": tier},
        }
        what = f"create price {price.lookup_key} ({price.unit_price} {price.currency} a unit after {price.included})"
        made = await self._change(what, "prices.create", lambda: self._v1.prices.create_async(new))
        return made.id if made is not None else ""

    async def _meter(self, meter: str) -> str:
        meters, wanted = self._v1.billing.meters, event_name(self._catalog, meter)
        query: Any = {"status": "active", "limit": 100}
        page = await self._call("meters.list", lambda: meters.list_async(query))
        async for found in page.auto_paging_iter():
            if found.event_name == wanted:
                return str(found.id)
        new: Any = {
            "display_name": f"{self._catalog.product.name} {meter.replace('_', ' ')}",
            "event_name": wanted,
            "default_aggregation": {"formula": "sum"},
            "customer_mapping": {"type": "by_id", "event_payload_key": CUSTOMER},
            "value_settings": {"event_payload_key": VALUE},
        }
        made = await self._change(f"create meter {wanted}", "meters.create", lambda: meters.create_async(new))
        return made.id if made is not None else ""

    async def _portal(self, wanted: Any) -> str:
        configurations = self._v1.billing_portal.configurations
        page = await self._call("portal.list", lambda: configurations.list_async({"active": True, "limit": 100}))
        theirs = (each.to_dict(for_json=True) for each in page.data)
        product = self._catalog.product.name
        there = next((each for each in theirs if (each.get("metadata") or {}).get("tollway_product") == product), None)
        if there is None:
            made = await self._change(
                "create the portal's configuration", "portal.create", lambda: configurations.create_async(wanted)
            )
            return made.id if made is not None else ""
        found = str(there["id"])
        if not _covers(there, wanted):
            await self._change(
                f"update the portal's configuration {found}",
                "portal.update",
                lambda: configurations.update_async(found, wanted),
            )
        return found

    async def _endpoint(self, endpoint: Endpoint) -> str:
        """The signing secret of an endpoint that was made now: Stripe shows it once. Else empty."""
        endpoints = self._v1.webhook_endpoints
        page = await self._call("webhook_endpoints.list", lambda: endpoints.list_async({"limit": 100}))
        found = next((each for each in page.data if each.url == endpoint.url), None)
        events: Any = sorted(endpoint.events)
        if found is None:
            new: Any = {"url": endpoint.url, "enabled_events": events, "description": "tollway"}
            what = f"create webhook endpoint {endpoint.url}"
            made = await self._change(what, "webhook_endpoints.create", lambda: endpoints.create_async(new))
            return str(made.secret) if made is not None else ""
        if "*" not in found.enabled_events and set(found.enabled_events) != set(events):
            await self._change(
                f"update webhook endpoint {endpoint.url} (events)",
                "webhook_endpoints.update",
                lambda: endpoints.update_async(found.id, {"enabled_events": events}),
            )
        return ""


def _portal(catalog: Catalog, sold: dict[str, list[str]], return_url: str) -> Any:
    """The portal's configuration. Plans can be changed where there are several; the difference is invoiced at once."""
    features: dict[str, Any] = {
        "customer_update": {"enabled": True, "allowed_updates": ["email", "address"]},
        "invoice_history": {"enabled": True},
        "payment_method_update": {"enabled": True},
        "subscription_cancel": {"enabled": True, "mode": "at_period_end"},
    }
    if sum(map(len, sold.values())) > 1:
        features["subscription_update"] = {
            "enabled": True,
            "default_allowed_updates": ["price"],
            "proration_behavior": "always_invoice",
            "products": [{"product": product, "prices": prices} for product, prices in sold.items()],
        }
    return {
        "business_profile": {"headline": f"{catalog.product.name}: your plan and invoices"},
        "default_return_url": return_url,
        "metadata": {"tollway_product": catalog.product.name},
        "features": features,
    }


def _covers(there: Any, wanted: Any) -> bool:
    """Stripe's object says what is wanted; what else it says is Stripe's own. Lists are sets to it."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_covers(there.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list):
        same = isinstance(there, list) and len(there) == len(wanted)
        return same and all(any(_covers(each, value) for each in there) for value in wanted)
    return bool(there == wanted)


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
