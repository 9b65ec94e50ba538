"""Units beyond the included ones, on the next invoice, to the cent."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from tests.e2e.manashiki import Org, developer, manashiki, world
from tests.e2e.world import World, until
from tollway.quota.v1 import quota_pb2, quota_pb2_grpc

__all__ = ["manashiki", "world"]  # fixtures
# Totals are announced every 10 s.
_ANNOUNCED_WITHIN_S = 45.0


async def consume(org: Org, amount: int, name: str) -> None:
    """So many live downloads with many keys, as a service behind the gateway counts them: each key may start 60 a
    minute."""
    stack = org.world.stack
    metadata = (("authorization", f"Bearer {stack.env['TOLLWAY_RPC_TOKEN']}"),)
    parts = [min(60, amount - done) for done in range(0, amount, 60)]
    requests = [
        quota_pb2.ConsumeRequest(
            account_id=org.customer.id, meter="live_downloads", amount=part, key_id=f"key_{name}_{number}"
        )
        for number, part in enumerate(parts)
    ]
    async with grpc.aio.insecure_channel(stack.address("quota")) as channel:
        asked = quota_pb2.ConsumeBatchRequest(requests=requests)
        answer = await quota_pb2_grpc.QuotaServiceStub(channel).ConsumeBatch(asked, metadata=metadata)
    assert all(result.decision.allowed for result in answer.results)


async def test_the_next_invoice_shows_overage_to_the_cent(world: World) -> None:
    org = await developer(world)
    await consume(org, 900, "a")
    await consume(org, 1_615, "b")

    async def sent() -> int:
        rows = await world.rows("billing", "SELECT sent FROM usage_total WHERE account_id = $1", org.customer.id)
        return sum(row["sent"] for row in rows)

    assert await until(sent, lambda units: units == 2_515, within=_ANNOUNCED_WITHIN_S) == 2_515
    (subscription,) = await org.customer.subscriptions()
    end = subscription["items"]["data"][0]["current_period_end"]
    await world.advance_to(end + 2 * 3600)

    async def invoices() -> list[tuple[str, int]]:
        found = await org.customer.invoices()
        return [(invoice["status"], invoice["amount_paid"]) for invoice in found]

    # 1,515 units beyond the first 1,000 at a tenth of a cent: $1.515, which is $1.52; and the next month's $15.
    assert (await until(invoices, lambda found: len(found) == 2))[0] == ("paid", 1_500 + 152)
    assert (await org.status())["tier"] == "paid"


@pytest.mark.parametrize("place", ["begun", "sent"])
async def test_units_reach_stripe_once_though_billing_is_killed_while_it_reports(world: World, place: str) -> None:
    org = await developer(world)
    before = world.stack.restarts("billing")
    world.stack.arm(f"billing.metering.{place}")
    await consume(org, 70, "k")
    await asyncio.to_thread(world.stack.wait_restarted, "billing", before + 1)
    # What the dead had claimed is free at once: tested is what follows, not how long a claim lasts.
    await world.rows("billing", "UPDATE usage_total SET hold_until = now() WHERE hold_until > now() RETURNING 1")

    async def sent() -> int:
        rows = await world.rows("billing", "SELECT sent FROM usage_total WHERE account_id = $1", org.customer.id)
        return sum(row["sent"] for row in rows)

    assert await until(sent, lambda units: units == 70, within=_ANNOUNCED_WITHIN_S) == 70
    customer = await org.customer.stripe_id()
    (meter,) = (await world.stripe("GET", "billing/meters", status="active"))["data"]
    now = (await world.stripe("GET", f"customers/{customer}"))["created"]
    start = now - now % 86_400 - 86_400
    summaries = await world.stripe(
        "GET",
        f"billing/meters/{meter['id']}/event_summaries",
        customer=customer,
        start_time=start,
        end_time=start + 60 * 86_400,
    )
    assert sum(each["aggregated_value"] for each in summaries["data"]) == 70
