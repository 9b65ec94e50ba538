"""Changing the plan in the portal, as its configuration allows."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from .conftest import Running
from .timeline import DAY, HOUR, START, Timeline


class Portal:
    """A customer on the small plan of three, at a portal that lets them change it."""

    def __init__(self, life: Timeline, **update: str) -> None:
        self.life, shop = life, life.shop
        self.prices = [shop.price(amount) for amount in (1000, 3000, 9000)]
        named = {
            f"features[subscription_update][products][{i}]{part}": value
            for i, price in enumerate(self.prices[:2])
            for part, value in (("[product]", price["product"]), ("[prices][0]", price["id"]))
        }
        self.configuration = shop.post(
            "/v1/billing_portal/configurations",
            **{
                "features[subscription_update][enabled]": "true",
                "features[subscription_update][default_allowed_updates][0]": "price",
                "features[subscription_update][proration_behavior]": "always_invoice",
                **named,
                **{f"features[subscription_update]{name}": value for name, value in update.items()},
            },
        )["id"]

    def subscribe(self, plan: int = 0, **more: str) -> str:
        return self.life.subscribe(self.prices[plan]["id"], **more)

    def url(self, **more: str) -> str:
        given = {"customer": self.life.customer, "configuration": self.configuration, **more}
        return str(self.life.shop.post("/v1/billing_portal/sessions", **given)["url"])

    def change(self, subscription: str, plan: int) -> httpx.Response:
        data = {"subscription": subscription, "price": self.prices[plan]["id"]}
        return httpx.post(f"{self.url()}/change", data=data)

    def price_of(self, subscription: str) -> Any:
        return self.life.subscription(subscription)["items"]["data"][0]["price"]["id"]


def test_an_upgrade_is_shown_with_its_cost_confirmed_and_paid(fresh: Timeline) -> None:
    portal = Portal(fresh)
    subscription = portal.subscribe()
    fresh.to(START + 14 * DAY)
    url = portal.url()
    assert "Change plan" in httpx.get(url).text
    plans = httpx.get(f"{url}/change", params={"subscription": subscription}).text
    assert plans.count("Choose</a>") == 1
    assert "$30.00 / month" in plans
    assert "$90.00" not in plans
    big = portal.prices[1]["id"]
    page = httpx.get(f"{url}/change/confirm", params={"subscription": subscription, "price": big}).text
    for text in ("Due today", "$10.00", "-$5.00", "$15.00"):
        assert text in page
    assert portal.price_of(subscription) == portal.prices[0]["id"]  # looking changes nothing
    done = httpx.post(f"{url}/change", data={"subscription": subscription, "price": big}, follow_redirects=True)
    assert "Your plan has been changed" in done.text
    assert portal.price_of(subscription) == big
    assert (fresh.invoices()[-1]["amount_paid"], fresh.invoices()[-1]["status"]) == (1000, "paid")


def test_a_declined_upgrade_changes_nothing(fresh: Timeline) -> None:
    portal = Portal(fresh)
    subscription = portal.subscribe()
    fresh.use("pm_card_chargeCustomerFail")
    answer = portal.change(subscription, 1)
    assert (answer.status_code, "Your card was declined." in answer.text) == (402, True)
    assert portal.price_of(subscription) == portal.prices[0]["id"]
    assert len(fresh.invoices()) == 1


def test_a_downgrade_can_wait_for_the_end_of_the_period(fresh: Timeline) -> None:
    portal = Portal(fresh, **{"[schedule_at_period_end][conditions][0][type]": "decreasing_item_amount"})
    subscription = portal.subscribe(1)
    fresh.to(START + 7 * DAY)
    assert "done=scheduled" in portal.change(subscription, 0).headers["location"]
    assert portal.price_of(subscription) == portal.prices[1]["id"]
    fresh.to(START + 28 * DAY + HOUR)
    assert portal.price_of(subscription) == portal.prices[0]["id"]
    assert [invoice["total"] for invoice in fresh.invoices()] == [3000, 1000]


def test_a_downgrade_at_once_leaves_a_balance(fresh: Timeline) -> None:
    portal = Portal(fresh)
    subscription = portal.subscribe(1)
    fresh.to(START + 14 * DAY)
    portal.change(subscription, 0)
    assert portal.price_of(subscription) == portal.prices[0]["id"]
    assert fresh.shop.get(f"/v1/customers/{fresh.customer}")["balance"] == -1000


@pytest.mark.parametrize(
    ("behavior", "status", "paid"), [("end_trial", "active", 3000), ("continue_trial", "trialing", 0)]
)
def test_a_change_in_a_trial_ends_it_or_not_as_configured(
    fresh: Timeline, behavior: str, status: str, paid: int
) -> None:
    portal = Portal(fresh, **{"[trial_update_behavior]": behavior})
    subscription = portal.subscribe(trial_period_days="14")
    fresh.to(START + DAY)
    portal.change(subscription, 1)
    assert fresh.subscription(subscription)["status"] == status
    assert fresh.invoices()[-1]["amount_paid"] == paid


def test_plans_that_the_configuration_does_not_offer_cannot_be_chosen(fresh: Timeline) -> None:
    portal = Portal(fresh)
    subscription = portal.subscribe()
    portal.change(subscription, 2)
    assert portal.price_of(subscription) == portal.prices[0]["id"]
    off = {"features[subscription_update][enabled]": "false"}
    fresh.shop.post(f"/v1/billing_portal/configurations/{portal.configuration}", **off)
    assert "Change plan" not in httpx.get(portal.url()).text
    portal.change(subscription, 1)
    assert portal.price_of(subscription) == portal.prices[0]["id"]


def test_flows_lead_straight_to_the_change_and_its_confirmation(fresh: Timeline) -> None:
    portal = Portal(fresh)
    subscription = portal.subscribe()
    target = {"flow_data[subscription_update][subscription]": subscription}
    url = portal.url(**{"flow_data[type]": "subscription_update", **target})
    assert "Change your plan" in httpx.get(url, follow_redirects=True).text
    item = fresh.subscription(subscription)["items"]["data"][0]["id"]
    name = "flow_data[subscription_update_confirm]"
    url = portal.url(
        **{
            "flow_data[type]": "subscription_update_confirm",
            f"{name}[subscription]": subscription,
            f"{name}[items][0][id]": item,
            f"{name}[items][0][price]": portal.prices[1]["id"],
            "flow_data[after_completion][type]": "redirect",
            "flow_data[after_completion][redirect][return_url]": "https://shop.example/changed",
        }
    )
    assert "Confirm your new plan" in httpx.get(url, follow_redirects=True).text
    done = httpx.post(f"{url}/change", data={"subscription": subscription, "price": portal.prices[1]["id"]})
    assert done.headers["location"] == "https://shop.example/changed"


def test_another_customers_subscription_is_out_of_reach(shop: Running, fresh: Timeline) -> None:
    portal = Portal(fresh)
    foreign = shop.subscribe(shop.customer()["id"], portal.prices[0]["id"])["id"]
    portal.subscribe()
    portal.change(foreign, 1)
    assert shop.get(f"/v1/subscriptions/{foreign}")["items"]["data"][0]["price"]["id"] == portal.prices[0]["id"]
    given = {"flow_data[type]": "subscription_update", "flow_data[subscription_update][subscription]": foreign}
    error = shop.refused("/v1/billing_portal/sessions", customer=fresh.customer, **given)
    assert error["code"] == "resource_missing"
