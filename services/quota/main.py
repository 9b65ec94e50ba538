"""`python -m services.quota.main`: the service's parts, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit import config, migrate, process, rpc, telemetry
from services.kit.clock import BusinessClock
from services.kit.database import create_engine, is_transient
from services.kit.outbox import Relay
from services.kit.stream import Stream
from services.quota import (
    application,
    consumer,
    grpc_guardrails,
    grpc_leases,
    grpc_outbox,
    grpc_server,
    keys,
    maintenance,
    totals,
)
from services.quota.billing import BillingLink
from services.quota.directory import BillingDirectory
from services.quota.envoy import ext_authz, ratelimit
from services.quota.lane import Lane
from services.quota.settings import QuotaSettings
from services.quota.storage import Plans, QuotaUnitOfWork
from services.quota.store import Store
from tollway.envoy.auth.v3 import external_auth_pb2_grpc
from tollway.envoy.ratelimit.v3 import rls_pb2_grpc
from tollway.quota.v1 import guardrail_pb2_grpc, kill_switch_pb2_grpc, lease_pb2_grpc, outbox_pb2_grpc, quota_pb2_grpc

MIGRATIONS = Path(__file__).parent / "migrations"

log = structlog.get_logger(__name__)


def main() -> None:
    settings = config.load(QuotaSettings)
    telemetry.configure_logs("quota", settings.log_level)

    @asynccontextmanager
    async def service(tasks: process.Tasks) -> AsyncIterator[None]:
        dsn = settings.quota_dsn.get_secret_value()
        engine = create_engine(dsn, application_name="tollway-quota")
        stream = Stream(settings.nats_url, name="tollway-quota")
        relay = Relay(engine, stream)
        link = rpc.Link(settings.billing_addr, settings, timeout_s=2.0)
        clock, plans = BusinessClock(settings.clock_file), Plans()

        def new_uow() -> QuotaUnitOfWork:
            return QuotaUnitOfWork(engine, plans, clock, committed=relay.wake)

        billing = BillingLink(link)
        directory = BillingDirectory(billing, lambda snapshots: application.store(snapshots, new_uow()))
        lane = Lane(
            Store(dsn, plans, clock, announced=relay.wake),
            make_days=lambda: maintenance.make_days(engine),
            queue=settings.quota_queue,
            linger_s=settings.quota_linger_ms / 1000,
            passes=plans.passes_when_down,
        )
        telemetry.gauge("tollway_quota_queue_length", lambda: float(len(lane)))
        server = rpc.Server(settings, settings.quota_port)
        server.add(
            quota_pb2_grpc.add_QuotaServiceServicer_to_server,
            grpc_server.QuotaServicer(lane, directory, new_uow),
            grpc_server.FULL_NAME,
        )
        server.add(
            lease_pb2_grpc.add_LeaseServiceServicer_to_server,
            grpc_leases.LeaseServicer(lane, directory, new_uow),
            grpc_leases.FULL_NAME,
        )
        server.add(
            guardrail_pb2_grpc.add_GuardrailServiceServicer_to_server,
            grpc_guardrails.GuardrailServicer(lane, directory),
            grpc_guardrails.FULL_NAME,
        )
        ring = keys.KeyRing(keys.StoredKeys(new_uow), billing, clock)
        asked = (lane, directory, ring, clock, settings.public_url)
        server.add(
            external_auth_pb2_grpc.add_AuthorizationServicer_to_server,
            ext_authz.Authorization(*asked),
            ext_authz.FULL_NAME,
        )
        server.add(
            rls_pb2_grpc.add_RateLimitServiceServicer_to_server,
            ratelimit.RateLimitService(*asked),
            ratelimit.FULL_NAME,
        )
        server.add(
            kill_switch_pb2_grpc.add_KillSwitchServiceServicer_to_server,
            grpc_server.KillSwitchServicer(new_uow, clock),
            grpc_server.KILL_SWITCH_NAME,
        )
        server.add(
            outbox_pb2_grpc.add_OutboxServiceServicer_to_server,
            grpc_outbox.OutboxServicer(new_uow),
            grpc_outbox.FULL_NAME,
        )
        stop_metrics = telemetry.serve_metrics(settings.host, settings.quota_metrics_port)
        try:
            await prepare(engine)
            stream.start()
            tasks.start(lane.run(), "lane")
            tasks.start(directory.run(), "directory")
            tasks.start(ring.run(), "keys")
            tasks.start(ring.keep_fresh(), "keys in use")
            tasks.start(relay.run(), "outbox relay")
            tasks.start(consumer.build(stream, new_uow).run(), "consumer")
            tasks.start(consumer.overhear(stream, ring), "revoked keys")
            tasks.start(maintenance.keep_days(engine, clock), "days")
            tasks.start(totals.keep_announcing(new_uow, clock), "totals")
            tasks.start(maintenance.keep_healing(billing, new_uow), "healing")
            await server.start()
            try:
                yield
            finally:
                await server.stop()
        finally:
            await tasks.stop()
            await stream.close()
            await link.close()
            stop_metrics()
            await engine.dispose()

    process.run(service)


async def prepare(engine: AsyncEngine) -> None:
    """The schema, and today's ledger. Services start in any order: a database that is not there yet is waited for."""
    delay = 0.1
    while True:
        try:
            await migrate.upgrade(engine, MIGRATIONS)
            await maintenance.make_days(engine)
        except Exception as error:
            if not is_transient(error):
                raise
            log.info("database.waiting", error=type(error).__name__)
            await asyncio.sleep(delay)  # pause between attempts to connect: there is nothing to await
            delay = min(delay * 2, 2.0)
        else:
            return


if __name__ == "__main__":
    main()
