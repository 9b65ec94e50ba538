"""Stripe's webhooks as they really come: twice, in the wrong order, late, not at all, and from strangers."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.world import Customer, Json, World, until


async def _version(world: World, customer: Customer) -> int:
    (row,) = await world.rows("billing", "SELECT version FROM entitlement WHERE account_id = $1", customer.id)
    return int(row["version"])


async def _status(world: World, event: Json) -> str | None:
    """What billing has made of an event; None when it is not stored."""
    rows = await world.rows("billing", "SELECT status FROM webhook_event WHERE id = $1", event["id"])
    return rows[0]["status"] if rows else None


async def _applied(world: World, event: Json) -> None:
    await until(lambda: _status(world, event), lambda status: status == "applied")


async def _announced(world: World, customer: Customer) -> list[str]:
    rows = await world.rows("billing", "SELECT subject FROM outbox WHERE subject LIKE $1", f"%.{customer.id}")
    return sorted(row["subject"].split(".")[2] for row in rows)


async def _pay_unheard(world: World, customer: Customer) -> None:
    """A payment of which no webhook arrives."""
    await world.knobs(drop=["*"])
    assert (await customer.pay(await customer.checkout())).status_code == 303
    await world.knobs(drop=[])


async def _deliver_all_lost(world: World, customer: Customer) -> None:
    for event in await world.events(await customer.stripe_id()):
        assert (await world.deliver(event)).status_code == 200
    await customer.receipts(1)


async def test_the_same_webhooks_again_change_nothing_and_mail_nothing(world: World) -> None:
    customer = await world.subscriber()
    await world.drained()
    version, announced = await _version(world, customer), await _announced(world, customer)
    events = await world.events(await customer.stripe_id())
    told = {event["type"] for event in events}
    assert {"customer.subscription.created", "invoice.paid", "checkout.session.completed"} <= told
    for event in [*events, *reversed(events)]:
        assert (await world.deliver(event)).status_code == 200
    # An event that is new, and so is surely applied after them, brings nothing new either.
    fresh = events[-1] | {"id": f"evt_{uuid.uuid4().hex}", "type": "customer.subscription.updated"}
    assert (await world.deliver(fresh)).status_code == 200
    await _applied(world, fresh)
    assert await _version(world, customer) == version
    assert await _announced(world, customer) == announced
    assert len(await customer.receipts(1)) == 1


async def test_updated_before_created_gives_the_same_as_in_order(world: World) -> None:
    customer = await world.sign_up()
    await _pay_unheard(world, customer)
    (subscription,) = await customer.subscriptions()
    await world.knobs(drop=["*"])
    await world.stripe("POST", f"subscriptions/{subscription['id']}", **{"metadata[note]": "a change"})
    await world.knobs(drop=[])
    stripe_id = await customer.stripe_id()
    (updated,) = await world.events(stripe_id, "customer.subscription.updated")
    (created,) = await world.events(stripe_id, "customer.subscription.created")
    assert (await world.deliver(updated)).status_code == 200
    billing = await customer.becomes("pro")
    version = await _version(world, customer)
    assert (await world.deliver(created)).status_code == 200
    await _applied(world, created)
    assert await customer.billing() == billing
    assert await _version(world, customer) == version
    await _deliver_all_lost(world, customer)


async def test_a_lost_webhook_is_made_up_for_by_any_later_one(world: World) -> None:
    customer = await world.sign_up()
    await _pay_unheard(world, customer)
    assert await customer.plan() == "free", "nobody has told us yet"
    (subscription,) = await customer.subscriptions()
    await world.stripe("POST", f"subscriptions/{subscription['id']}", **{"metadata[note]": "a later change"})
    await customer.becomes("pro")
    await _deliver_all_lost(world, customer)


async def test_a_resend_from_stripes_dashboard_brings_the_receipt_that_was_lost(world: World) -> None:
    customer = await world.sign_up()
    await _pay_unheard(world, customer)
    assert await world.mails(customer.email) == []
    (paid,) = await world.events(await customer.stripe_id(), "invoice.paid")
    await world.stripe("POST", f"events/{paid['id']}/retry")
    assert len(await customer.receipts(1)) == 1
    await customer.becomes("pro")
    await _deliver_all_lost(world, customer)


async def test_webhooks_doubled_and_shuffled_end_in_one_plan_and_one_receipt(world: World) -> None:
    customer = await world.sign_up()
    await world.knobs(duplicate=True, reorder=True)
    await customer.subscribe()
    await world.drained()
    assert (await customer.billing())["plan"] == "pro"
    assert len(await customer.receipts(1)) == 1
    assert (await _announced(world, customer)).count("InvoicePaid") == 1


async def test_a_late_deleted_of_an_old_subscription_does_not_end_the_new_one(world: World) -> None:
    customer = await world.subscriber()
    (old,) = await customer.subscriptions()
    await world.drained()
    await world.knobs(drop=["customer.subscription.deleted"])
    await world.stripe("DELETE", f"subscriptions/{old['id']}")
    await world.knobs(drop=[])
    stripe_id = await customer.stripe_id()
    (deleted,) = await world.events(stripe_id, "customer.subscription.deleted")
    # Something else tells of the end, and the customer buys anew before `deleted` comes.
    other = deleted | {"id": f"evt_{uuid.uuid4().hex}", "type": "customer.subscription.updated"}
    assert (await world.deliver(other)).status_code == 200
    await customer.becomes("free")
    assert (await customer.pay(await customer.checkout())).status_code == 303
    billing = await customer.becomes("pro")
    await customer.receipts(2)
    await world.drained()
    version = await _version(world, customer)
    assert await _status(world, deleted) is None
    assert (await world.deliver(deleted)).status_code == 200
    await _applied(world, deleted)
    assert await customer.billing() == billing
    assert await _version(world, customer) == version
    assert await customer.stripe_id() == stripe_id, "the same customer at Stripe"


def _wrong_secret(world: World, payload: bytes) -> str:
    return world.sign(payload, secret="whsec_" + "f" * 32)


def _stale(world: World, payload: bytes) -> str:
    return world.sign(payload, at=time.time() - 310)


def _future(world: World, payload: bytes) -> str:
    return world.sign(payload, at=time.time() + 310)


def _of_another_body(world: World, payload: bytes) -> str:
    return world.sign(payload + b" ")


def _older_scheme(world: World, payload: bytes) -> str:
    return world.sign(payload).replace("v1=", "v0=")


def _two_times(world: World, payload: bytes) -> str:
    return f"t={int(time.time()) - 10_000}," + world.sign(payload)


def _nothing(world: World, payload: bytes) -> str:
    return ""


@pytest.mark.parametrize(
    "signature",
    [_wrong_secret, _stale, _future, _of_another_body, _older_scheme, _two_times, _nothing],
    ids=lambda made: made.__name__.strip("_"),
)
async def test_a_signature_that_is_not_stripes_of_now_is_refused_and_nothing_stored(
    world: World, signature: Callable[[World, bytes], str]
) -> None:
    customer = await world.subscriber("Forged")
    (created,) = await world.events(await customer.stripe_id(), "customer.subscription.created")
    forged = created | {"id": f"evt_{uuid.uuid4().hex}"}
    answer = await world.deliver(forged, signature=signature(world, json.dumps(forged).encode()))
    assert (answer.status_code, answer.json()["code"]) == (400, "signature_invalid")
    assert await _status(world, forged) is None
    # What was refused is this signature, not this event.
    assert (await world.deliver(forged)).status_code == 200
    await _applied(world, forged)


@pytest.mark.parametrize("skew", [-290, 290])
async def test_a_clock_that_is_almost_five_minutes_off_is_accepted(world: World, skew: int) -> None:
    customer = await world.sign_up()
    event: Json = {
        "id": f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "created": int(time.time()),
        "livemode": False,
        "type": "customer.created",
        "data": {"object": {"id": "cus_elsewhere", "object": "customer", "metadata": {}}},
    }
    signature = world.sign(json.dumps(event).encode(), at=time.time() + skew)
    assert (await world.deliver(event, signature=signature)).status_code == 200
    assert await _status(world, event) == "ignored"
    assert await customer.plan() == "free"


@pytest.mark.parametrize(
    ("change", "code"),
    [({"livemode": True}, "livemode_mismatch"), ({"data": None}, "event_malformed"), ({"id": 7}, "event_malformed")],
    ids=["live event", "no data", "no id"],
)
async def test_a_signed_body_that_is_no_event_for_us_is_refused_and_nothing_stored(
    world: World, change: dict[str, Any], code: str
) -> None:
    (before,) = await world.rows("billing", "SELECT count(*) AS n FROM webhook_event WHERE payload LIKE '%cus_odd%'")
    event: Json = {
        "id": f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "created": int(time.time()),
        "livemode": False,
        "type": "customer.subscription.created",
        "data": {"object": {"id": "sub_odd", "object": "subscription", "customer": "cus_odd"}},
    }
    answer = await world.deliver(event | change)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    (after,) = await world.rows("billing", "SELECT count(*) AS n FROM webhook_event WHERE payload LIKE '%cus_odd%'")
    assert after["n"] == before["n"]


async def test_a_customer_who_is_not_ours_is_noted_as_foreign_and_changes_nobody(world: World) -> None:
    event: Json = {
        "id": f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "created": int(time.time()),
        "livemode": False,
        "type": "customer.subscription.created",
        "data": {"object": {"id": "sub_alien", "object": "subscription", "customer": "cus_alien", "metadata": {}}},
    }
    assert (await world.deliver(event)).status_code == 200
    await until(lambda: _status(world, event), lambda status: status == "ignored_foreign")
