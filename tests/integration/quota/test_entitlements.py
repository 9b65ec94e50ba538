"""Snapshots on PostgreSQL: the highest version wins, counters stay, and lost events heal (DESIGN §11.9)."""

from __future__ import annotations

import asyncio
import random

from sqlalchemy import text

from services.kit.clock import BusinessClock
from services.kit.config import Settings
from services.kit.rpc import Link
from services.quota import application
from services.quota.billing import BillingLink
from services.quota.storage import Plans, QuotaUnitOfWork
from tests.integration.quota import world


async def test_versions_only_grow_in_whatever_order_and_company_they_come(database: str) -> None:
    shuffled = random.Random(3)
    versions = [(name, version) for name in ("acct_a", "acct_b", "acct_c") for version in range(1, 15)]
    shuffled.shuffle(versions)
    async with world.tables(database) as engine:

        async def writer(part: list[tuple[str, int]]) -> None:
            for start in range(0, len(part), 3):
                await world.put(
                    engine,
                    *(world.entitlements(name, version=n, limit=n) for name, n in part[start : start + 3]),
                )

        await asyncio.gather(*(writer(versions[n::4]) for n in range(4)))
        async with world.unit_of_work(engine) as uow:
            for name in ("acct_a", "acct_b", "acct_c"):
                stored = await uow.accounts.get(name)
                assert stored is not None
                assert (stored.version, stored.plan.limits[0].limit) == (14, 14)
        assert await world.put(engine, world.entitlements("acct_a", version=14, limit=1)) == 0


async def test_what_changed_at_billing_is_read_page_by_page_and_only_once(database: str) -> None:
    billing = world.Billing([world.entitlements(f"acct_{n}", limit=n) for n in range(5)])
    async with world.tables(database) as engine, world.billing_server(billing) as address:
        link = Link(address, Settings(local=True))
        source = BillingLink(link)

        def new_uow() -> QuotaUnitOfWork:
            return QuotaUnitOfWork(engine, Plans(), BusinessClock())

        assert await application.heal(source, new_uow) == 5
        assert await application.heal(source, new_uow) == 0
        billing.accounts.append(world.entitlements("acct_2", version=2, tier="pro", limit=1000))
        assert await application.heal(source, new_uow) == 1
        async with new_uow() as uow:
            stored = await uow.accounts.get("acct_2")
        assert stored is not None
        assert (stored.version, stored.plan.tier) == (2, "pro")
        async with engine.connect() as connection:
            plans = await connection.execute(text("SELECT count(*) FROM plan"))
        assert plans.scalar_one() == 6
        await link.close()
