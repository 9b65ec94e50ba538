"""Whatever is done to a subscription in whatever order, the books balance and every object keeps its shape."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.stripe_sandbox.errors import ApiError
from local.stripe_sandbox.lists import render
from tests.integration.stripe_sandbox.stripe_schema import check

from .world import World, world

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning:stripe")

DAY = 86_400
LIVE = {"trialing", "active", "past_due", "unpaid"}
PRORATIONS = ("always_invoice", "create_prorations", "none")
_OWN_KINDS = {"challenge", "v2.core.event"}

_STEP = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([600, 3 * DAY, 8 * DAY + 77, 31 * DAY])),
    st.tuples(st.just("card"), st.sampled_from(["visa", "chargeCustomerFail", "authenticationRequired"])),
    st.tuples(st.just("plan"), st.tuples(st.integers(0, 3), st.sampled_from(PRORATIONS))),
    st.tuples(st.just("use"), st.sampled_from(["1", "999", "1500.5"])),
    st.tuples(st.just("cancel"), st.sampled_from(["later", "never", "now", "billed"])),
    st.tuples(st.just("pause"), st.sampled_from(["pause", "resume", "void", "keep_as_draft", "collect"])),
    st.tuples(st.just("trial"), st.sampled_from(["now", "longer"])),
    st.tuples(st.just("pay"), st.sampled_from(["pay", "void", "mark_uncollectible"])),
    st.tuples(st.just("refund"), st.sampled_from(["100", ""])),
    st.tuples(st.just("coupon"), st.sampled_from(["once", "forever", ""])),
    st.tuples(st.just("again"), st.sampled_from([0, 14])),
)


class Life:
    def __init__(self, shop: World, *, trial: int, end_state: str, tax: str) -> None:
        self.shop = shop
        shop.sandbox.store.set_setting("end_state", end_state)
        shop.sandbox.store.set_setting("tax_percent", tax)
        self.plans = [shop.price(1000), shop.price(2500), shop.price(9999), shop.price(20_000, days=360)]
        meter = shop.call(
            "POST",
            "/v1/billing/meters",
            display_name="Uses",
            event_name="uses",
            default_aggregation={"formula": "sum"},
        )["id"]
        tiers = [{"up_to": "1000", "unit_amount": "0"}, {"up_to": "inf", "unit_amount_decimal": "0.1"}]
        self.metered = shop.price(
            0,
            billing_scheme="tiered",
            tiers_mode="graduated",
            tiers=tiers,
            recurring={"usage_type": "metered", "meter": meter},
        )
        for duration in ("once", "forever"):
            shop.call("POST", "/v1/coupons", id=duration, percent_off="15", duration=duration)
        self.uses = 0
        self.subscribe(trial)

    def subscribe(self, trial: int) -> None:
        days = {"trial_period_days": str(trial)} if trial else {}
        items = [{"price": self.plans[0]}, {"price": self.metered}]
        taxed = {"enabled": "true"}
        self.id = self.shop.call(
            "POST", "/v1/subscriptions", customer=self.shop.customer, items=items, automatic_tax=taxed, **days
        )["id"]

    @property
    def path(self) -> str:
        return f"/v1/subscriptions/{self.id}"

    def do(self, what: str, how: Any) -> None:
        """One step; what cannot be done now is refused with an error of Stripe's, and that is fine."""
        with contextlib.suppress(ApiError):
            getattr(self, what)(how)

    def wait(self, seconds: int) -> None:
        self.shop.advance(seconds)

    def card(self, name: str) -> None:
        customer = self.shop.customer
        made = self.shop.call("POST", f"/v1/payment_methods/pm_card_{name}/attach", customer=customer)["id"]
        self.shop.call("POST", f"/v1/customers/{customer}", invoice_settings={"default_payment_method": made})

    def plan(self, choice: tuple[int, str]) -> None:
        item = self.shop.call("GET", self.path)["items"]["data"][0]["id"]
        change = {"items": [{"id": item, "price": self.plans[choice[0]]}], "proration_behavior": choice[1]}
        self.shop.call("POST", self.path, **change)

    def use(self, units: str) -> None:
        self.uses += 1
        payload = {"stripe_customer_id": self.shop.customer, "value": units}
        self.shop.call(
            "POST", "/v1/billing/meter_events", event_name="uses", identifier=str(self.uses), payload=payload
        )

    def cancel(self, how: str) -> None:
        if how in ("later", "never"):
            self.shop.call("POST", self.path, cancel_at_period_end="true" if how == "later" else "false")
        else:
            billed = {"invoice_now": "true", "prorate": "true"} if how == "billed" else {}
            self.shop.call("DELETE", self.path, **billed)

    def pause(self, how: str) -> None:
        if how in ("pause", "resume"):
            self.shop.call("POST", f"{self.path}/{how}")
        else:
            self.shop.call("POST", self.path, pause_collection="" if how == "collect" else {"behavior": how})

    def trial(self, how: str) -> None:
        self.shop.call("POST", self.path, trial_end="now" if how == "now" else str(self.shop.now() + 10 * DAY))

    def pay(self, how: str) -> None:
        for invoice in self.shop.all("invoice"):
            if invoice["status"] == "open":
                self.shop.call("POST", f"/v1/invoices/{invoice['id']}/{how}")

    def refund(self, amount: str) -> None:
        for charge in self.shop.all("charge")[-1:]:
            given = {"amount": amount} if amount else {}
            self.shop.call("POST", "/v1/refunds", charge=charge["id"], **given)

    def coupon(self, name: str) -> None:
        self.shop.call("POST", self.path, discounts=[{"coupon": name}] if name else "")

    def again(self, trial: int) -> None:
        if self.shop.call("GET", self.path)["ended_at"] is not None:
            self.subscribe(trial)

    def audit(self) -> None:
        store = self.shop.sandbox.store
        invoices = self.shop.all("invoice")
        for invoice in invoices:
            lines = invoice["lines"]["data"]
            off = sum(one["amount"] for one in invoice["total_discount_amounts"])
            tax = sum(one["amount"] for one in invoice["total_taxes"])
            assert invoice["subtotal"] == sum(line["amount"] for line in lines)
            assert invoice["total"] == invoice["subtotal"] - off + tax
            assert off == sum(one["amount"] for line in lines for one in line["discount_amounts"])
            if invoice["status"] != "void":
                assert invoice["amount_due"] == invoice["amount_paid"] + invoice["amount_remaining"]
            assert (invoice["status"] == "paid") == (invoice["status_transitions"]["paid_at"] is not None)
        customer = self.shop.call("GET", f"/v1/customers/{self.shop.customer}")
        moves = self.shop.all("customer_balance_transaction")
        assert customer["balance"] == sum(move["amount"] for move in moves)
        charges = self.shop.all("charge")
        assert sum(c["amount_captured"] for c in charges) == sum(i["amount_paid"] for i in invoices)
        for charge in charges:
            refunds = store.all("refund", ref=charge["id"])
            assert charge["amount_refunded"] == sum(one["amount"] for one in refunds) <= charge["amount_captured"]
        for subscription in self.shop.all("subscription"):
            jobs = store.db.execute("SELECT task FROM jobs WHERE object = ?", (subscription["id"],)).fetchall()
            assert (subscription["status"] in LIVE) == (("turn",) in jobs) or subscription["status"] == "incomplete"
        with store.transaction():
            context = self.shop.sandbox.context()
            for (body,) in store.db.execute("SELECT body FROM objects").fetchall():
                obj = json.loads(body)
                if obj["object"] not in _OWN_KINDS:
                    check(json.loads(json.dumps(render(context, obj, []))))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(_STEP, min_size=4, max_size=16),
    st.sampled_from([0, 14]),
    st.sampled_from(["cancel", "unpaid", "past_due"]),
    st.sampled_from(["0", "10"]),
)
def test_no_sequence_of_actions_breaks_the_books_or_a_shape(
    steps: list[tuple[str, Any]], trial: int, end_state: str, tax: str
) -> None:
    with world() as shop:
        life = Life(shop, trial=trial, end_state=end_state, tax=tax)
        for what, how in steps:
            life.do(what, how)
        life.audit()
        life.wait(35 * DAY)
        life.audit()


@pytest.mark.parametrize("end_state", ["cancel", "unpaid", "past_due"])
def test_a_paused_subscription_stays_so_when_collecting_an_older_invoice_fails(end_state: str) -> None:
    with world() as shop:
        life = Life(shop, trial=0, end_state=end_state, tax="0")
        for what, how in (("card", "chargeCustomerFail"), ("wait", 32 * DAY), ("pause", "pause")):
            life.do(what, how)
        assert shop.call("GET", life.path)["status"] == "paused"
        life.wait(35 * DAY)
        assert shop.call("GET", life.path)["status"] == ("canceled" if end_state == "cancel" else "paused")
        life.audit()
