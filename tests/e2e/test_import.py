"""Customers who subscribe at Stripe already become accounts, by the operator's command and real processes."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

from tests.e2e.test_cli_story import Terminal
from tests.e2e.world import World, until


async def subscribed_at_stripe(world: World, email: str, name: str, **details: Any) -> str:
    """A customer that somebody made in the dashboard, who is on pro; the customer's id."""
    customer = await world.stripe("POST", "customers", email=email, name=name)
    card = {"type": "card", "card[token]": "tok_visa"}
    method = await world.stripe("POST", "payment_methods", **card)
    await world.stripe("POST", f"payment_methods/{method['id']}/attach", customer=customer["id"])
    (price,) = (await world.stripe("GET", "prices", **{"lookup_keys[]": "skytale_pro_month"}))["data"]
    details |= {"items[0][price]": price["id"], "default_payment_method": method["id"]}
    await world.stripe("POST", "subscriptions", customer=customer["id"], **details)
    return str(customer["id"])


async def test_who_subscribes_at_stripe_gets_an_account_and_no_old_receipt_and_its_life_goes_on_here(
    world: World, tmp_path: Path
) -> None:
    email = f"grace-{uuid.uuid4().hex[:8]}@example.com"
    customer_id = await subscribed_at_stripe(world, email, "Grace Hopper", trial_period_days=5)
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
    await world.advance_to(subscription["trial_end"] - 3 * 86_400 + 60)
    await until(lambda: world.mails(email), lambda mails: len(mails) == 1)  # that the trial ends, and what it costs
    moved = f"moved-{email}"
    await terminal.tollway("admin", "contact", account_id, moved)
    assert (await world.stripe("GET", f"customers/{customer_id}"))["email"] == moved
    assert "No use came late." in await terminal.tollway("admin", "late-usage", "--account", account_id)
    # While it subscribes nobody is erased; afterwards, only who means it.
    await terminal.tollway("admin", "erase", account_id, "--yes", code=4)
    await world.stripe("DELETE", f"subscriptions/{subscription['id']}")
    await until(tier, lambda tier: tier == "free")
    await until(lambda: world.mails(moved), lambda mails: len(mails) == 1)  # that it has ended
    await terminal.tollway("admin", "erase", account_id, code=2)
    shown = await terminal.tollway("admin", "erase", account_id, "--yes")
    assert "was erased at" in shown
    assert "is deleted" in shown
    assert await terminal.tollway("admin", "erase", account_id, "--yes") == shown
    assert (await world.stripe("GET", f"customers/{customer_id}"))["deleted"]
    (row,) = await world.rows(
        "billing", "SELECT name, email, stripe_customer_id FROM account WHERE id = $1", account_id
    )
    assert tuple(row) == ("Erased", "", customer_id)


async def test_billing_killed_in_the_middle_of_an_import_leaves_nothing_that_the_next_run_does_not_finish(
    world: World, tmp_path: Path
) -> None:
    found = [await subscribed_at_stripe(world, f"ada-{uuid.uuid4().hex[:8]}@example.com", "Ada") for _ in range(3)]
    terminal = Terminal(world, tmp_path / "home", TOLLWAY_OPERATOR_TOKEN=world.stack.operator_token)
    before = world.stack.restarts("billing")
    world.stack.arm("billing.import.committed")
    await terminal.tollway("admin", "import", code=5)
    await asyncio.to_thread(world.stack.wait_restarted, "billing", before + 1)

    async def imported() -> list[str]:
        page = await world.gateway.post(
            "/v1/operator/import", json={}, headers={"Authorization": f"Bearer {world.stack.operator_token}"}
        )
        return [each["outcome"] for each in page.json().get("customers", []) if each["customer_id"] in found]

    await until(imported, lambda outcomes: outcomes == ["already_ours"] * 3)
    rows = await world.rows("billing", "SELECT 1 FROM account WHERE stripe_customer_id = ANY($1)", found)
    assert len(rows) == 3
