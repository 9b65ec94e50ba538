"""The catalog: readable, and on sale at Stripe."""

from __future__ import annotations

from collections.abc import AsyncIterator

import stripe
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from services.billing.application.webhooks import HANDLED
from services.billing.catalog import Catalog, CatalogError, load_catalog
from services.billing.errors import StripeUnavailable
from services.billing.ports import Endpoint
from services.billing.settings import BillingSettings
from services.billing.storage import BillingUnitOfWork
from services.billing.stripe import StripePayments
from services.doctor.finding import Finding


def read(settings: BillingSettings) -> tuple[Catalog | None, list[Finding]]:
    try:
        catalog = load_catalog(settings.catalog)
    except CatalogError as error:
        fix = "tollway catalog check FILE says more"
        return None, [Finding.fail("catalog", problem, fix) for problem in error.problems[:5]]
    return catalog, [Finding.ok("catalog", f"{catalog.product.name}, {len(catalog.tiers)} tiers")]


async def examine(settings: BillingSettings, catalog: Catalog) -> AsyncIterator[Finding]:
    """What a push would do: nothing, when everything is there."""
    payments = StripePayments(settings.stripe_api_key, base=settings.stripe_api_base, rate=settings.stripe_rate)
    base = settings.public_url
    endpoint = None if settings.local else Endpoint(f"{base}/webhooks/stripe", HANDLED)
    try:
        pushed = await payments.push(catalog, f"{base}/", endpoint=endpoint, dry_run=True)
    except (StripeUnavailable, stripe.StripeError) as error:
        yield Finding.skip("catalog at Stripe", f"Stripe does not say: {type(error).__name__}")
        return
    finally:
        await payments.close()
    if not pushed.changes:
        yield Finding.ok("catalog at Stripe", "everything is on sale")
        yield await _noted(settings, catalog)
        return
    told = f"{len(pushed.changes)} things differ, such as: {pushed.changes[0]}"
    yield Finding.fail("catalog at Stripe", told, f"tollway catalog push {settings.catalog}")


async def _noted(settings: BillingSettings, catalog: Catalog) -> Finding:
    """Whether billing knows the ids of what is sold: a push notes them, a database that was put back may lack them."""
    check = "prices in billing"
    engine = create_async_engine(settings.billing_dsn, poolclass=NullPool, connect_args={"timeout": 5})
    try:
        async with BillingUnitOfWork(engine) as uow:
            known = await uow.prices.on_sale()
    except (SQLAlchemyError, OSError) as error:
        return Finding.skip(check, f"its database does not say: {type(error).__name__}")
    finally:
        await engine.dispose()
    sold = {price.lookup_key for tier in catalog.tiers.values() for price in tier.prices}
    if missing := sorted(sold - known.keys()):
        told = f"it does not know {', '.join(missing)}: nobody can buy that"
        return Finding.fail(check, told, f"tollway catalog push {settings.catalog}")
    return Finding.ok(check, f"{len(sold)} known")
