"""The refund by policy, through real processes and Manashiki's catalog."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.manashiki import Org, developer, manashiki, sign_up, world
from tests.e2e.world import World, until

__all__ = ["manashiki", "world"]  # fixtures


async def refund(org: Org, method: str = "POST"):  # type: ignore[no-untyped-def] # httpx.Response
    return await org.call(method, f"/v1/orgs/{org.slug}/billing/refund")


async def test_a_refund_within_seven_days_ends_the_subscription_and_gives_the_base_fee_back(world: World) -> None:
    org = await developer(world)
    await org.downloaded(org.live_key)
    offer = (await refund(org, "GET")).json()
    assert (offer["eligible"], offer["ends_subscription"], offer["amount"], offer["used"]) == (True, True, 1500, 1)
    answer = await refund(org)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (made["status"], made["amount"], made["currency"], made["used"]) == ("refunded", 1500, "usd", 1)
    await org.becomes("canceled")
    at_stripe = await world.stripe("GET", f"refunds/{made['stripe_refund_id']}")
    assert (at_stripe["amount"], at_stripe["status"]) == (1500, "succeeded")
    assert (await org.download(org.live_key)).json()["reason"] == "subscription_inactive"
    assert (await refund(org)).json() == made, "an account has one refund"


async def test_who_never_paid_has_nothing_to_refund(world: World) -> None:
    org = await sign_up(world)
    answer = await refund(org)
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_refund")


async def test_a_refund_in_stripes_dashboard_is_noticed(world: World) -> None:
    org = await developer(world)
    customer = await org.customer.stripe_id()
    (charge,) = (await world.stripe("GET", "charges", customer=customer))["data"]
    made = await world.stripe("POST", "refunds", charge=charge["id"], amount=300)

    async def seen() -> list[tuple[str, int]]:
        rows = await world.rows(
            "billing", "SELECT id, amount FROM charge_reversal WHERE account_id = $1", org.customer.id
        )
        return [(row["id"], row["amount"]) for row in rows]

    assert await until(seen, bool) == [(made["id"], 300)]
    assert (await org.status())["tier"] == "paid"


@pytest.mark.parametrize("place", ["requested", "canceled", "counted", "made"])
async def test_a_refund_goes_on_after_a_kill_and_is_made_once(world: World, place: str) -> None:
    org = await developer(world)
    (charge,) = (await world.stripe("GET", "charges", customer=await org.customer.stripe_id()))["data"]
    before = world.stack.restarts("billing")
    world.stack.arm(f"billing.refund.{place}")
    await refund(org)
    await asyncio.to_thread(world.stack.wait_restarted, "billing", before + 1)

    async def status() -> str:
        answer = await refund(org)
        return str(answer.json().get("status") or answer.status_code)

    assert await until(status, lambda told: told == "refunded", within=60) == "refunded"
    assert len((await world.stripe("GET", "refunds", charge=charge["id"]))["data"]) == 1
    await org.becomes("canceled")
