"""Reconciliation, through real processes: Stripe's webhooks are lost, and the operator asks what differs."""

from __future__ import annotations

from typing import Any

from tests.e2e.world import Json, World, until


async def reconcile(world: World, **body: Any) -> Json:
    headers = {"Authorization": f"Bearer {world.stack.operator_token}"}
    answer = await world.gateway.post("/v1/operator/reconcile", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_what_lost_webhooks_missed_is_told_field_by_field_and_repaired(world: World) -> None:
    customer = await world.subscriber()
    (subscription,) = await customer.subscriptions()
    await world.knobs(drop=["*"])
    await world.stripe("POST", f"subscriptions/{subscription['id']}", cancel_at_period_end="true")
    await world.drained()
    assert not (await customer.billing())["cancel_at_period_end"]
    dry = await reconcile(world, account_id=customer.id, dry_run=True)
    assert "cancel_at_period_end" in {drift["field"] for drift in dry["drifts"]}
    assert not (await customer.billing())["cancel_at_period_end"]
    await reconcile(world, account_id=customer.id)
    await until(customer.billing, lambda billing: bool(billing["cancel_at_period_end"]))
    assert (await reconcile(world, account_id=customer.id, dry_run=True))["drifts"] == []
    await world.knobs(drop=[])
    page = await reconcile(world)
    assert page["missed_events"] >= 1
