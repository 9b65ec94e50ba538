"""Customers who subscribe at Stripe already become accounts, by the operator's command and real processes."""

from __future__ import annotations

import uuid
from pathlib import Path

from tests.e2e.test_cli_story import Terminal
from tests.e2e.world import World, until


async def subscribed_at_stripe(world: World, email: str, name: str) -> str:
    """A customer that somebody made in the dashboard, who pays for pro; the customer's id."""
    customer = await world.stripe("POST", "customers", email=email, name=name)
    card = {"type": "card", "card[token]": "tok_visa"}
    method = await world.stripe("POST", "payment_methods", **card)
    await world.stripe("POST", f"payment_methods/{method['id']}/attach", customer=customer["id"])
    (price,) = (await world.stripe("GET", "prices", **{"lookup_keys[]": "skytale_pro_month"}))["data"]
    details = {"items[0][price]": price["id"], "default_payment_method": method["id"]}
    await world.stripe("POST", "subscriptions", customer=customer["id"], **details)
    return str(customer["id"])


async def test_who_subscribes_at_stripe_gets_an_account_and_no_old_receipt_and_its_life_goes_on_here(
    world: World, tmp_path: Path
) -> None:
    email = f"grace-{uuid.uuid4().hex[:8]}@example.com"
    customer_id = await subscribed_at_stripe(world, email, "Grace Hopper")
    await world.drained()
    terminal = Terminal(world, tmp_path / "home", TOLLWAY_OPERATOR_TOKEN=world.stack.operator_token)
    told = (await terminal.json("admin", "import", "--dry-run"))["customers"]
    (mine,) = (each for each in told if each["customer_id"] == customer_id)
    assert (mine["outcome"], mine["account_id"]) == ("imported", None)
    shown = await terminal.tollway("admin", "import")
    assert f"{customer_id}  {email}" in shown
    again = (await terminal.json("admin", "import", "--customer", customer_id))["customers"]
    (mine,) = again
    assert mine["outcome"] == "already_ours"
    account_id = mine["account_id"]

    async def tier() -> str:
        (row,) = await world.rows("billing", "SELECT tier FROM entitlement WHERE account_id = $1", account_id)
        return str(row[0])

    await until(tier, lambda tier: tier == "pro")
    # What it was told lies on the customer, for whoever meets it next.
    customer = await until(
        lambda: world.stripe("GET", f"customers/{customer_id}"), lambda found: bool(found["metadata"])
    )
    assert customer["metadata"]["tollway_account_id"] == account_id
    assert await world.mails(email) == []
    (subscription,) = (await world.stripe("GET", "subscriptions", customer=customer_id))["data"]
    await world.stripe("DELETE", f"subscriptions/{subscription['id']}")
    await until(tier, lambda tier: tier == "free")
