"""What people and time do of which Stripe hears: how each story begins, its act, and how it has to end, once the
act was tried again after a fault."""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from services.billing.application import (
    checkout,
    contacts,
    customer_push,
    erasure,
    imports,
    reconcile,
    refunds,
    subscriptions,
)
from services.billing.application.checkout import CreateCheckout
from services.billing.application.imports import ImportCustomers
from services.billing.catalog import Catalog, load_catalog
from services.billing.domain.metering import Report
from services.billing.domain.principal import Actor, ActorKind
from services.billing.domain.refund import State
from services.billing.errors import AlreadySubscribed, PlanUnchanged, StripeUnavailable
from services.billing.ports import Endpoint
from tests.integration.billing.at_sandbox import Json, Shop
from tests.integration.billing.conftest import event

OPERATOR = Actor(ActorKind.OPERATOR, "op")
OWNER = Actor(ActorKind.SESSION, "usr_1")
_LIVE = {"active", "trialing", "past_due", "unpaid", "paused"}
_numbers = itertools.count(1)

# The library tries three times in all; what is lost three times is lost for us.
FAULTS: dict[str, Json] = {
    "429": {"status": 429, "next": 1},
    "500, stored under the key": {"status": 500, "next": 3},
    "cut before the work": {"status": "cut", "next": 3},
    "cut after the work": {"status": "cut", "next": 3, "after": True},
}


DEEP = bool(os.environ.get("TOLLWAY_DEEP"))
_LOST = ("cut after the work",)


@dataclass(frozen=True)
class Story:
    """`begin` prepares in calm and gives the account; `act` is what people or time do; `holds` asserts what is so
    once it went through."""

    catalog: str
    begin: Callable[[Shop], Awaitable[str]]
    act: Callable[[Shop, str], Awaitable[object]]
    holds: Callable[[Shop, str], Awaitable[None]]
    # TOLLWAY_DEEP=1 tries all with each: what a call makes of a fault hardly depends on the story.
    faults: tuple[str, ...] = ("429", "cut after the work")


def _email() -> str:
    return f"ada-{next(_numbers)}@example.com"


async def newcomer(shop: Shop) -> str:
    return await shop.sign_up(_email())


async def _asked(shop: Shop) -> str:
    account_id = await newcomer(shop)
    await shop.check_out(account_id, "business")
    return account_id


async def _on_business(shop: Shop) -> str:
    return await shop.subscriber(_email(), "business")


async def _developer(shop: Shop) -> str:
    return await shop.subscriber(_email(), "paid")


async def _paid_unheard(shop: Shop) -> str:
    account_id = await newcomer(shop)
    await shop.pay(await shop.check_out(account_id, "business"))
    return account_id


async def checks_out(shop: Shop, account_id: str) -> None:
    await shop.check_out(account_id, "business")


async def _checks_out_elsewhere(shop: Shop, account_id: str) -> None:
    await shop.check_out(account_id, "business", success_url="http://127.0.0.1:8080/other")


async def _checks_out_again(shop: Shop, account_id: str) -> None:
    with pytest.raises(AlreadySubscribed):
        await shop.check_out(account_id, "business")


async def one_customer_and_one_page(shop: Shop, account_id: str) -> None:
    customers = (await shop.get("customers", limit=100))["data"]
    # Another installation's accounts may be there, too.
    ours = [each["id"] for each in customers if each["metadata"].get("tollway_account_id") == account_id]
    assert ours == [await shop.customer(account_id)]
    page = await shop.check_out(account_id, "business")
    await shop.pay(page)
    await shop.hear_of(account_id)
    await shop.settle()
    assert [each["status"] for each in await shop.subscriptions(account_id)] == ["active"]
    assert (await shop.state(account_id)).entitlement.tier == "business"


async def _one_other_page(shop: Shop, account_id: str) -> None:
    sessions = (await shop.get("checkout/sessions", customer=await shop.customer(account_id), limit=100))["data"]
    known = await checkout.create_checkout(
        CreateCheckout(account_id, "business", success_url="http://127.0.0.1:8080/other"), shop.context
    )
    assert known.id in {each["id"] for each in sessions if each["status"] == "open"}
    await shop.pay(known)
    assert len([each for each in await shop.subscriptions(account_id) if each["status"] in _LIVE]) == 1


async def _still_one_subscription(shop: Shop, account_id: str) -> None:
    await shop.settle()
    assert (await shop.state(account_id)).entitlement.tier == "business"
    assert len(await shop.subscriptions(account_id)) == 1


async def _opens_portal(shop: Shop, account_id: str) -> None:
    assert (await checkout.create_portal_session(account_id, "", shop.context)).startswith("http")


async def _previews(shop: Shop, account_id: str) -> None:
    assert (await subscriptions.preview_change(account_id, "scale", shop.context)).invoice.amount_due > 0


async def _changes(shop: Shop, account_id: str) -> None:
    with suppress(PlanUnchanged):  # the first try went through, and its webhook was faster than the second
        await subscriptions.change_plan(account_id, "scale", None, OWNER, shop.context)
    await shop.hear_of(account_id)
    await shop.settle()


async def _on_scale_charged_once(shop: Shop, account_id: str) -> None:
    (subscription,) = await shop.subscriptions(account_id)
    assert [item["price"]["unit_amount"] for item in subscription["items"]["data"]] == [9900]
    invoices = (await shop.get("invoices", customer=await shop.customer(account_id)))["data"]
    assert len(invoices) == 2
    assert (await shop.state(account_id)).entitlement.tier == "scale"


async def _cancels(shop: Shop, account_id: str) -> None:
    await subscriptions.set_cancellation(account_id, OWNER, shop.context, cancel=True)
    await shop.settle()


async def _is_cancelling(shop: Shop, account_id: str) -> None:
    (subscription,) = await shop.subscriptions(account_id)
    assert (subscription["status"], subscription["cancel_at_period_end"]) == ("active", True)
    assert (await shop.state(account_id)).entitlement.cancel_at_period_end


async def _sees_refund(shop: Shop, account_id: str) -> None:
    offer = await refunds.preview_refund(account_id, shop.context)
    assert (offer.reason, offer.fee and offer.fee.amount) == ("", 1500)


async def _refunds(shop: Shop, account_id: str) -> None:
    """The worker that goes on with refunds, as time does it."""
    await shop.settle()
    made = await refunds.create_refund(account_id, OWNER, shop.context)
    await shop.settle()
    if not made.state.final:
        made = await refunds.create_refund(account_id, OWNER, shop.context)
    if not made.state.final:
        raise StripeUnavailable("it goes on by itself")
    assert made.state is State.REFUNDED


async def _refunded_once(shop: Shop, account_id: str) -> None:
    (charge,) = (await shop.get("charges", customer=await shop.customer(account_id)))["data"]
    made = (await shop.get("refunds", charge=charge["id"]))["data"]
    assert [(each["amount"], each["status"]) for each in made] == [(1500, "succeeded")]
    assert [each["status"] for each in await shop.subscriptions(account_id)] == ["canceled"]


async def _syncs(shop: Shop, account_id: str) -> None:
    await shop.hear_of(account_id)
    await shop.settle()


async def _reports(shop: Shop, account_id: str) -> None:
    now = shop.context.business.now().replace(microsecond=0)
    report = Report(await shop.customer(account_id), "live_downloads", 7, f"report-{account_id}", now)
    await shop.payments.report_usage(report, shop.context.catalog)


async def _reported_once(shop: Shop, account_id: str) -> None:
    meters = (await shop.get("billing/meters", limit=100))["data"]
    (meter,) = (each for each in meters if each["event_name"].startswith("tollway_manashiki_"))
    now = int(shop.context.business.now().timestamp())
    begin, end = now // 60 * 60 - 600, now // 60 * 60 + 600
    span = {"customer": await shop.customer(account_id), "start_time": begin, "end_time": end}
    summaries = (await shop.get(f"billing/meters/{meter['id']}/event_summaries", **span))["data"]
    assert sum(each["aggregated_value"] for each in summaries) == 7


async def _reconciles(shop: Shop, account_id: str) -> None:
    # What was missed is read, not the days of all the other stories.
    found = await reconcile.reconcile(account_id, "", shop.context, dry_run=False)
    assert not found.busy


async def _another_catalog(shop: Shop) -> str:
    """A catalog that Stripe knows nothing of."""
    return f"Shop {next(_numbers)}"


def _catalogs_of(name: str) -> tuple[Catalog, Catalog]:
    """A catalog, and the same with something changed."""
    text = Path("catalogs/manashiki.yaml").read_text()
    text = text.replace("name: Manashiki", f"name: {name}").replace("manashiki_", f"{_slug(name)}_")
    with TemporaryDirectory() as folder:
        (before := Path(folder, "before.yaml")).write_text(text)
        (after := Path(folder, "after.yaml")).write_text(text.replace("Developer", "Maker"))
        return load_catalog(before), load_catalog(after)


def _slug(name: str) -> str:
    return name.lower().replace(" ", "_")


async def _pushes(shop: Shop, name: str) -> None:
    """A new catalog, and then a change of it and of where it is sold."""
    before, after = _catalogs_of(name)
    host = f"https://{_slug(name).replace('_', '-')}.example"
    for catalog, kind, page in ((before, "invoice.paid", "/"), (after, "invoice.voided", "/plans")):
        endpoint = Endpoint(f"{host}/webhooks/stripe", frozenset({kind}))
        await shop.payments.push(catalog, f"{host}{page}", endpoint=endpoint)


async def _pushed_once(shop: Shop, name: str) -> None:
    slug = _slug(name)
    product = await shop.get(f"products/tollway_{slug}_paid")
    assert product["name"] == f"{name} Maker"
    prices = (await shop.get("prices", product=product["id"], limit=100))["data"]
    assert len(prices) == 2, "the base price and the one of units"
    meters = (await shop.get("billing/meters", limit=100))["data"]
    assert len([each for each in meters if each["event_name"].startswith(f"tollway_{slug}_")]) == 1
    endpoints = (await shop.get("webhook_endpoints", limit=100))["data"]
    (endpoint,) = (each for each in endpoints if slug.replace("_", "-") in each["url"])
    assert endpoint["enabled_events"] == ["invoice.voided"]
    await shop.post(f"webhook_endpoints/{endpoint['id']}", disabled="true")


async def _refunded_at_stripe(shop: Shop) -> str:
    account_id = await _developer(shop)
    (charge,) = (await shop.get("charges", customer=await shop.customer(account_id)))["data"]
    await shop.post("refunds", charge=charge["id"], amount=300)
    # An event of a dispute names a charge and no customer.
    await shop.hear(event("charge.dispute.created", {"id": "du_1", "object": "dispute", "charge": charge["id"]}))
    return account_id


async def _reversal_is_known_once(shop: Shop, account_id: str) -> None:
    async with shop.context.unit_of_work() as uow:
        query = f"SELECT amount FROM charge_reversal WHERE account_id = '{account_id}'"
        rows = (await uow.connection.exec_driver_sql(query)).all()
    assert rows == [(300,)]


async def _more_than_a_page_unheard(shop: Shop) -> str:
    account_id = await shop.subscriber(_email(), "pro")
    (subscription,) = await shop.subscriptions(account_id)
    if not (await shop.get("events", type="customer.subscription.updated", limit=100))["has_more"]:
        for number in range(101):
            await shop.post(f"subscriptions/{subscription['id']}", **{"metadata[note]": number})
    await shop.post(f"subscriptions/{subscription['id']}", cancel_at_period_end="true")
    return account_id


async def _sweeps(shop: Shop, account_id: str) -> None:
    await reconcile.find_missed(shop.context, dry_run=False)
    await shop.settle()


async def _takes_back(shop: Shop, account_id: str) -> None:
    await subscriptions.set_cancellation(account_id, OWNER, shop.context, cancel=False)
    await shop.settle()


async def _cancelling(shop: Shop) -> str:
    account_id = await _on_business(shop)
    await _cancels(shop, account_id)
    return account_id


async def _goes_on(shop: Shop, account_id: str) -> None:
    (subscription,) = await shop.subscriptions(account_id)
    assert (subscription["status"], subscription["cancel_at_period_end"]) == ("active", False)


async def _nobodys_event(shop: Shop) -> str:
    """An event of our customer, whose id a crash kept us from noting and whose object does not name us."""
    account_id = await _paid_unheard(shop)
    await shop.hear_of(account_id)
    async with shop.context.unit_of_work() as uow:
        await uow.connection.exec_driver_sql("UPDATE webhook_event SET account_id = NULL WHERE status = 'pending'")
        await uow.connection.exec_driver_sql(f"UPDATE account SET stripe_customer_id = NULL WHERE id = '{account_id}'")
        await uow.commit()
    return account_id


async def _finds_owners(shop: Shop, account_id: str) -> None:
    await shop.settle()


async def _pushes_are_due(shop: Shop) -> None:
    """As time does it."""
    async with shop.context.unit_of_work() as uow:
        await uow.connection.exec_driver_sql("UPDATE customer_push SET hold_until = now()")
        await uow.commit()


async def _moves(shop: Shop, account_id: str) -> None:
    await _pushes_are_due(shop)
    _, done = await contacts.set_contact(account_id, f"{account_id}@example.com", OPERATOR, shop.context)
    if not done:
        raise StripeUnavailable("it goes on by itself")


async def _moved(shop: Shop, account_id: str) -> None:
    customer = await shop.get(f"customers/{await shop.customer(account_id)}")
    assert customer["email"] == f"{account_id}@example.com"


async def _ended(shop: Shop) -> str:
    account_id = await _on_business(shop)
    (subscription,) = await shop.subscriptions(account_id)
    await shop.payments.cancel_subscription(subscription["id"], f"{account_id}:end")
    await _syncs(shop, account_id)
    return account_id


async def _erases(shop: Shop, account_id: str) -> None:
    await _pushes_are_due(shop)
    _, done = await erasure.erase_account(account_id, OPERATOR, shop.context)
    if not done:
        raise StripeUnavailable("it goes on by itself")


async def _erased(shop: Shop, account_id: str) -> None:
    assert (await shop.get(f"customers/{await shop.customer(account_id)}"))["deleted"]


async def _sold_by_hand(shop: Shop) -> str:
    """A customer that somebody made at Stripe, who subscribes there; its id."""
    customer = await shop.post("customers", email=_email())
    method = await shop.post("payment_methods", type="card", **{"card[token]": "tok_visa"})
    await shop.post(f"payment_methods/{method['id']}/attach", customer=customer["id"])
    (price,) = (await shop.get("prices", **{"lookup_keys[]": "vatly_business_month"}))["data"]
    details = {"items[0][price]": price["id"], "default_payment_method": method["id"]}
    await shop.post("subscriptions", customer=customer["id"], **details)
    return str(customer["id"])


async def _imports(shop: Shop, customer_id: str) -> None:
    await imports.import_customers(ImportCustomers(OPERATOR, customer_id=customer_id), shop.context)


async def _imported_once(shop: Shop, customer_id: str) -> None:
    async with shop.context.unit_of_work() as uow:
        query = f"SELECT id FROM account WHERE stripe_customer_id = '{customer_id}'"
        ((account_id,),) = (await uow.connection.exec_driver_sql(query)).all()
    await _pushes_are_due(shop)
    assert await customer_push.push_now(account_id, shop.context)
    await shop.settle()
    assert (await shop.state(account_id)).entitlement.tier == "business"


STORIES = {
    "contact": Story("vatly.yaml", _on_business, _moves, _moved),
    "erasure": Story("vatly.yaml", _ended, _erases, _erased, _LOST),
    "import": Story("vatly.yaml", _sold_by_hand, _imports, _imported_once, _LOST),
    "checkout": Story("vatly.yaml", newcomer, checks_out, one_customer_and_one_page, tuple(FAULTS)),
    "checkout, another page": Story("vatly.yaml", _asked, _checks_out_elsewhere, _one_other_page),
    "checkout just after paying": Story("vatly.yaml", _paid_unheard, _checks_out_again, _still_one_subscription),
    "portal": Story("vatly.yaml", _on_business, _opens_portal, _still_one_subscription),
    "preview": Story("vatly.yaml", _on_business, _previews, _still_one_subscription),
    "change of plan": Story("vatly.yaml", _on_business, _changes, _on_scale_charged_once),
    "cancel": Story("vatly.yaml", _on_business, _cancels, _is_cancelling),
    "sync": Story("vatly.yaml", _paid_unheard, _syncs, _still_one_subscription),
    "reconcile": Story("vatly.yaml", _paid_unheard, _reconciles, _still_one_subscription),
    "an owner is looked for": Story("vatly.yaml", _nobodys_event, _finds_owners, _still_one_subscription),
    "resume": Story("vatly.yaml", _cancelling, _takes_back, _goes_on, _LOST),
    "sweep": Story("skytale.yaml", _more_than_a_page_unheard, _sweeps, _is_cancelling, ("429",)),
    "push": Story("manashiki.yaml", _another_catalog, _pushes, _pushed_once, _LOST),
    "refund at Stripe": Story("manashiki.yaml", _refunded_at_stripe, _finds_owners, _reversal_is_known_once, _LOST),
    "preview of a refund": Story("manashiki.yaml", _developer, _sees_refund, _sees_refund),
    "refund": Story("manashiki.yaml", _developer, _refunds, _refunded_once, ("500, stored under the key", *_LOST)),
    "report of use": Story("manashiki.yaml", _developer, _reports, _reported_once),
}
