"""Pushes a catalog to Stripe once and says what changed: `python -m services.billing.push [--dry-run] [FILE]`.

`--dry-run` changes nothing and says what would; without FILE it is the catalog of the settings (CATALOG)."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from stripe import InvalidRequestError

from services.billing.application.context import Context
from services.billing.application.plans import push_catalog
from services.billing.catalog import Catalog
from services.billing.errors import StripeUnavailable
from services.billing.events import Announcer
from services.billing.later import Later
from services.billing.main import MIGRATIONS, read_catalog
from services.billing.notify import NotifyLink
from services.billing.ports import Pushed
from services.billing.quota import QuotaLink
from services.billing.settings import BillingSettings
from services.billing.storage import BillingUnitOfWork
from services.billing.stripe import StripePayments
from services.billing.vault import Vault
from services.kit import config, migrate, telemetry
from services.kit.clock import BusinessClock, WallClock
from services.kit.database import create_engine
from services.kit.rpc import Link


async def _push(settings: BillingSettings, catalog: Catalog, dry_run: bool) -> Pushed:
    engine = create_engine(settings.billing_dsn, pool_size=1, application_name="tollway-push")
    payments = StripePayments(settings.stripe_api_key, base=settings.stripe_api_base, rate=settings.stripe_rate)
    # Neither is called: nothing is refunded here, and nobody signs in.
    quota = QuotaLink(Link(settings.quota_addr, settings))
    notify = NotifyLink(Link(settings.notify_addr, settings))
    context = Context(
        settings=settings,
        catalog=catalog,
        announcer=Announcer(catalog, settings.public_url),
        payments=payments,
        usage=quota,
        sign_in_mail=notify,
        vault=Vault(settings.secret_key),
        business=BusinessClock(settings.clock_file),
        wall=WallClock(),
        unit_of_work=lambda: BillingUnitOfWork(engine),
        marked=lambda: None,
        later=Later(),
    )
    try:
        await migrate.upgrade(engine, MIGRATIONS)
        return await push_catalog(context, dry_run=dry_run)
    finally:
        await payments.close()
        await quota.close()
        await notify.close()
        await engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(prog="push", description="Makes what a catalog sells exist at Stripe.")
    parser.add_argument("file", nargs="?", help="the catalog; else CATALOG")
    parser.add_argument("--dry-run", action="store_true", help="only say what would change")
    given = parser.parse_args()
    if given.file:
        os.environ["CATALOG"] = given.file
    settings = config.load(BillingSettings)
    telemetry.configure_logs("push", "warning")
    catalog = read_catalog(settings)
    try:
        pushed = asyncio.run(_push(settings, catalog, given.dry_run))
    except StripeUnavailable:
        sys.exit("push: Stripe does not answer, or refuses the key in STRIPE_API_KEY")
    except InvalidRequestError as error:  # Stripe's own sentence about what the catalog asks for; it holds no secret
        sys.exit(f"push: Stripe refuses: {error.user_message or type(error).__name__}")
    print("\n".join(pushed.changes) if pushed.changes else f"{catalog.product.name}: Stripe has everything already")
    if pushed.webhook_secret:
        print(f"set STRIPE_WEBHOOK_SECRET={pushed.webhook_secret}, which Stripe shows this once")


if __name__ == "__main__":
    main()
