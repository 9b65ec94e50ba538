"""Billing as a process: wiring only. `python -m services.billing.main`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import structlog

from services.billing import consumer
from services.billing.application import (
    audit,
    customer_push,
    device_logins,
    idempotency,
    metering,
    operators,
    plans,
    reconcile,
    refunds,
    sessions,
    sign_in,
    sweep,
    webhooks,
)
from services.billing.application.auth import SigningKeys
from services.billing.application.context import Context
from services.billing.application.sync import Worker
from services.billing.batches import Batches
from services.billing.catalog import Catalog, CatalogError, load_catalog
from services.billing.events import Announcer
from services.billing.grpc_server import add_services
from services.billing.later import Later
from services.billing.notify import NotifyLink
from services.billing.quota import QuotaLink
from services.billing.settings import BillingSettings
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.webhooks import Heard, Ingested
from services.billing.stripe import StripePayments
from services.billing.vault import Vault
from services.kit import config, migrate, process, telemetry
from services.kit.clock import BusinessClock, WallClock
from services.kit.database import create_engine
from services.kit.outbox import Relay
from services.kit.rpc import Link, Server
from services.kit.stream import Stream

MIGRATIONS = Path(__file__).parent / "migrations"
HOUSEKEEPING_S = 600.0

log = structlog.get_logger(__name__)


def read_catalog(settings: BillingSettings) -> Catalog:
    """The catalog, or the end of the process with what is wrong (exit 78, EX_CONFIG)."""
    try:
        return load_catalog(settings.catalog)
    except CatalogError as error:
        print("\n".join(f"catalog: {problem}" for problem in error.problems), file=sys.stderr)
        raise SystemExit(78) from None


@asynccontextmanager
async def billing(settings: BillingSettings, catalog: Catalog, tasks: process.Tasks) -> AsyncIterator[None]:
    """Serves until the block ends."""
    engine = create_engine(settings.billing_dsn, pool_size=10, application_name="tollway-billing")
    await migrate.upgrade(engine, MIGRATIONS)
    stream = Stream(settings.nats_url, name="tollway-billing")
    relay = Relay(engine, stream)
    payments = StripePayments(settings.stripe_api_key, base=settings.stripe_api_base, rate=settings.stripe_rate)
    notify = NotifyLink(Link(settings.notify_addr, settings))
    later = Later()
    quota = QuotaLink(Link(settings.quota_addr, settings, timeout_s=5.0))
    together: Batches[Heard, Ingested] = Batches(lambda heard: webhooks.keep(heard, context))
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
        unit_of_work=lambda: BillingUnitOfWork(engine, committed=relay.wake),
        marked=lambda: worker.wake(),
        later=later,
        new_claim=lambda: worker.new_claim(),
        claimed=lambda claimed, claim: worker.begin(claimed, claim),
        together=together.do,
    )
    worker = Worker(context)
    await _refuse_missing_tiers(context)
    keys = SigningKeys(context)
    await keys.rotate()
    server = Server(settings, settings.billing_port)
    add_services(server, context, keys)
    stop_metrics = telemetry.serve_metrics(settings.host, settings.billing_metrics_port)
    stream.start()
    tasks.start(relay.run(), "outbox relay")
    tasks.start(worker.run(), "sync worker")
    tasks.start(worker.run_unowned(), "unowned events")
    tasks.start(refunds.run(context), "refunds")
    tasks.start(consumer.build(stream, context).run(), "consumer")
    tasks.start(customer_push.run(context), "customers")
    tasks.start(metering.run(context), "metering")
    tasks.start(operators.run(context), "overrides")
    tasks.start(reconcile.run(context), "reconciliation")
    tasks.start(sweep.run(context), "sweep")
    tasks.start(_housekeeping(context, keys), "housekeeping")
    await server.start()
    try:
        yield
    finally:
        await server.stop()
        await later.finished()
        await tasks.stop()
        await stream.close()
        await payments.close()
        await quota.close()
        await notify.close()
        await engine.dispose()
        stop_metrics()


async def _refuse_missing_tiers(context: Context) -> None:
    """A catalog that drops a tier would take it from those who pay for it."""
    missing = await plans.missing_tiers(context)
    if missing:
        names = ", ".join(sorted(missing))
        path = context.settings.catalog
        print(f"catalog: {path}: accounts hold {names}: keep it, with `grandfathered: true`", file=sys.stderr)
        raise SystemExit(78)


async def _housekeeping(context: Context, keys: SigningKeys) -> None:
    while True:
        try:
            changed = await plans.apply_catalog(context)
            if changed:
                log.info("catalog.applied", accounts=changed)
            await keys.rotate()
            now = context.wall.now()
            async with context.unit_of_work() as uow:
                await uow.answers.forget(now, idempotency.KEPT)
                await uow.sign_ups.forget(now, timedelta(days=1))
                await uow.sessions.forget(now - sessions.KEPT)
                await uow.device_logins.forget(now, device_logins.KEPT)
                await uow.key_sessions.forget(now - sessions.KEPT)
                await uow.sign_in_links.forget(now - sign_in.KEPT)
                await uow.sign_in_attempts.forget(now - sign_in.KEPT)
                await uow.commit()
            await audit.purge(context)
        except Exception as error:
            log.warning("housekeeping.delayed", error=repr(error))
        await asyncio.sleep(HOUSEKEEPING_S)  # a period, not a wait for something


def main() -> None:
    settings = config.load(BillingSettings)
    telemetry.configure_logs("billing", settings.log_level)
    catalog = read_catalog(settings)
    process.run(lambda tasks: billing(settings, catalog, tasks))


if __name__ == "__main__":
    main()
