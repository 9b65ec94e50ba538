"""Metered billing: events counted once, priced by tiers, invoiced to the cent."""

from __future__ import annotations

import json
import time
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import httpx
import pytest

from .conftest import Receiver, Running
from .timeline import DAY, HOUR, START, Timeline

DOWNLOADS = {  # $15 a month, 1,000 downloads included, then $0.001 each
    "tiers[0][up_to]": "1000",
    "tiers[0][unit_amount]": "0",
    "tiers[1][up_to]": "inf",
    "tiers[1][unit_amount_decimal]": "0.1",
}


def _meter(shop: Running, formula: str = "sum") -> dict[str, Any]:
    name = f"downloads_{time.monotonic_ns()}"
    return shop.post(
        "/v1/billing/meters",
        display_name="Downloads",
        event_name=name,
        **{"default_aggregation[formula]": formula},
    )


def _metered(shop: Running, meter: dict[str, Any], tiers: dict[str, str] = DOWNLOADS, **more: str) -> str:
    product = shop.post("/v1/products", name="Downloads")["id"]
    price = shop.post(
        "/v1/prices",
        product=product,
        currency="usd",
        **{"recurring[interval]": "month", "recurring[usage_type]": "metered", "recurring[meter]": meter["id"]},
        **({"billing_scheme": "tiered", "tiers_mode": "graduated", **tiers} | more if tiers else more),
    )
    return str(price["id"])


class Metered(Timeline):
    """A customer with a base fee and a metered price."""

    def __init__(self, shop: Running, **trial: str) -> None:
        super().__init__(shop)
        self.meter = _meter(shop)
        price = _metered(shop, self.meter)
        self.id = self.subscribe(shop.price(1500)["id"], **{"items[1][price]": price}, **trial)
        self.period_end: int = self.subscription(self.id)["items"]["data"][1]["current_period_end"]

    def event(self, units: int | str, at: int | None = None, identifier: str | None = None) -> dict[str, str]:
        data = {
            "event_name": self.meter["event_name"],
            "payload[stripe_customer_id]": self.customer,
            "payload[value]": str(units),
        }
        if at is not None:
            data["timestamp"] = str(at)
        return data | ({"identifier": identifier} if identifier else {})

    def use(self, units: int | str, at: int | None = None, identifier: str | None = None) -> dict[str, Any]:  # type: ignore[override]
        return self.shop.post("/v1/billing/meter_events", **self.event(units, at, identifier))

    def lines(self, invoice: dict[str, Any]) -> list[tuple[int, int]]:
        return [(line["quantity"], line["amount"]) for line in invoice["lines"]["data"]]


@pytest.fixture
def life(shop: Running) -> Metered:
    return Metered(shop)


@pytest.mark.parametrize("used", [0, 1, 1000, 1001, 1004, 1005, 1312, 250_000])
def test_the_next_invoice_bills_included_and_further_units_to_the_cent(life: Metered, used: int) -> None:
    assert [invoice["total"] for invoice in life.invoices()] == [1500]  # nothing is used yet
    life.to(START + DAY)
    if used:
        life.use(used - used // 3)
        if used // 3:
            life.use(used // 3)
    life.to(life.period_end + HOUR)
    invoice = life.invoices()[-1]
    over = max(0, used - 1000)
    overage = int((over * Decimal("0.1")).quantize(Decimal(1), ROUND_HALF_UP))
    wanted = [(1, 1500), (min(used, 1000), 0)] + ([(over, overage)] if over else [])
    assert life.lines(invoice) == wanted
    assert (invoice["status"], invoice["amount_paid"]) == ("paid", 1500 + overage)
    period = invoice["lines"]["data"][1]["period"]
    assert period == {"start": START, "end": life.period_end}
    base = invoice["lines"]["data"][0]["period"]
    assert base["start"] == life.period_end


def test_units_of_a_period_that_arrive_while_its_invoice_is_a_draft_are_on_it(life: Metered) -> None:
    life.to(START + DAY)
    life.use(1100)
    life.to(life.period_end + 60)
    assert (life.invoices()[-1]["status"], life.lines(life.invoices()[-1])[-1]) == ("draft", (100, 10))
    life.use(500, at=life.period_end - 1)
    life.use(70, at=life.period_end)  # belongs to the next
    life.to(life.period_end + HOUR)
    assert life.lines(life.invoices()[-1])[-1] == (600, 60)
    life.use(9000, at=life.period_end - 1)  # too late: the invoice is final
    life.to(life.subscription(life.id)["items"]["data"][0]["current_period_end"] + HOUR)
    assert life.lines(life.invoices()[-1]) == [(1, 1500), (70, 0)]


def test_an_identifier_counts_once_and_a_repeat_is_refused(life: Metered) -> None:
    life.to(START + DAY)
    life.use(5, identifier=f"id-{life.customer}")
    error = life.shop.refused("/v1/billing/meter_events", 400, **life.event(5, identifier=f"id-{life.customer}"))
    assert "already exists" in error["message"]
    assert error["code"] == "resource_already_exists"
    life.to(START + 2 * DAY + 60)
    life.use(7, identifier=f"id-{life.customer}")  # known for 24 hours
    summary = life.shop.get(
        f"/v1/billing/meters/{life.meter['id']}/event_summaries?customer={life.customer}"
        f"&start_time={START}&end_time={START + 3 * DAY}"
    )["data"]
    assert [one["aggregated_value"] for one in summary] == [12.0]


@pytest.mark.parametrize(
    ("offset", "code"),
    [
        (-35 * DAY, None),
        (-35 * DAY - 1, "timestamp_too_far_in_past"),
        (300, None),
        (301, "timestamp_in_future"),
    ],
)
def test_times_lie_within_35_days_before_and_5_minutes_after_now(shop: Running, offset: int, code: str | None) -> None:
    life = Metered(shop)
    event = life.event(1, at=START + offset)
    if code is None:
        assert shop.post("/v1/billing/meter_events", **event)["timestamp"] == START + offset
    else:
        assert shop.refused("/v1/billing/meter_events", **event)["code"] == code


def test_a_wrong_event_is_accepted_and_reported_afterwards_to_endpoints_that_ask(
    own: Running, receiver: Receiver
) -> None:
    kind = "v1.billing.meter.error_report_triggered"
    hook = own.post("/v1/webhook_endpoints", url=receiver.url, **{"enabled_events[0]": kind})
    receiver.thin_secrets.append(hook["secret"])
    meter = _meter(own)
    event = {"event_name": meter["event_name"], "payload[stripe_customer_id]": "cus_nobody", "payload[value]": "3"}
    assert own.post("/v1/billing/meter_events", **event, identifier="lost")["identifier"] == "lost"
    sent = receiver.wait_for(kind)[0].event
    assert (sent["object"], sent["related_object"]["id"], "data" in sent) == ("v2.core.event", meter["id"], False)
    whole = own.call("GET", f"/v2/core/events/{sent['id']}").json()
    reason = whole["data"]["reason"]["error_types"][0]
    assert reason["code"] == "meter_event_customer_not_found"
    assert reason["sample_errors"][0]["request"] == {"identifier": "lost"}


@pytest.mark.parametrize(("formula", "total"), [("sum", 9.0), ("count", 3.0), ("last", 4.0)])
def test_a_meter_aggregates_by_its_formula(shop: Running, formula: str, total: float) -> None:
    meter, customer = _meter(shop, formula), shop.customer()["id"]
    for value in (2, 3, 4):
        shop.post(
            "/v1/billing/meter_events",
            event_name=meter["event_name"],
            **{"payload[stripe_customer_id]": customer, "payload[value]": str(value)},
        )
    start = int(time.time()) // 60 * 60 - 3600
    path = f"/v1/billing/meters/{meter['id']}/event_summaries?customer={customer}"
    summary = shop.get(f"{path}&start_time={start}&end_time={start + 7200}")["data"]
    assert [one["aggregated_value"] for one in summary] == [total]
    assert shop.refused(f"{path}&start_time={start + 1}&end_time={start + 7200}", 400, "GET")["param"] == "start_time"


def test_summaries_by_day_list_the_days_with_use_newest_first(life: Metered) -> None:
    midnight = START - START % DAY
    for at, units in ((DAY + 60, 10), (DAY + HOUR, 5), (4 * DAY + 60, 2)):
        life.to(midnight + at)
        life.use(units)
    path = (
        f"/v1/billing/meters/{life.meter['id']}/event_summaries?customer={life.customer}&value_grouping_window=day"
        f"&start_time={midnight}&end_time={midnight + 7 * DAY}"
    )
    found = life.shop.get(path)["data"]
    assert [(one["start_time"], one["aggregated_value"]) for one in found] == [
        (midnight + 4 * DAY, 2.0),
        (midnight + DAY, 15.0),
    ]
    first = life.shop.get(f"{path}&limit=1")
    assert (len(first["data"]), first["has_more"]) == (1, True)
    rest = life.shop.get(f"{path}&limit=1&starting_after={first['data'][0]['id']}")
    assert (rest["data"][0]["aggregated_value"], rest["has_more"]) == (15.0, False)


def test_an_event_can_be_taken_back(life: Metered) -> None:
    life.to(START + DAY)
    life.use(2000, identifier=f"wrong-{life.customer}")
    given = {"event_name": life.meter["event_name"], "type": "cancel", "cancel[identifier]": f"wrong-{life.customer}"}
    assert life.shop.post("/v1/billing/meter_event_adjustments", **given)["status"] == "complete"
    life.to(life.period_end + HOUR)
    assert life.lines(life.invoices()[-1]) == [(1, 1500), (0, 0)]


def test_a_cancellation_at_the_period_end_bills_what_was_used(life: Metered) -> None:
    life.shop.post(f"/v1/subscriptions/{life.id}", cancel_at_period_end="true")
    life.to(START + DAY)
    life.use(2000)
    life.to(life.period_end + 60)
    assert life.subscription(life.id)["status"] == "canceled"
    assert life.invoices()[-1]["status"] == "draft"
    life.to(life.period_end + HOUR)
    last = life.invoices()[-1]
    assert (life.lines(last), last["status"]) == ([(1000, 0), (1000, 100)], "paid")


def test_a_cancellation_now_bills_use_only_when_it_is_to_be_invoiced(shop: Running) -> None:
    for asked, count in (({}, 1), ({"invoice_now": "true"}, 2)):
        life = Metered(shop)
        life.to(START + DAY)
        life.use(1500)
        life.to(START + 2 * DAY)
        shop.call("DELETE", f"/v1/subscriptions/{life.id}", asked or None)
        assert len(life.invoices()) == count
    assert (life.lines(life.invoices()[-1]), life.invoices()[-1]["status"]) == ([(1000, 0), (500, 50)], "paid")


def test_use_in_a_trial_is_free(shop: Running) -> None:
    life = Metered(shop, trial_period_days="7")
    life.to(START + DAY)
    life.use(5000)
    life.to(START + 7 * DAY + HOUR)
    assert life.lines(life.invoices()[-1]) == [(1, 1500)]
    life.use(1200)
    life.to(life.subscription(life.id)["items"]["data"][0]["current_period_end"] + HOUR)
    assert life.lines(life.invoices()[-1]) == [(1, 1500), (1000, 0), (200, 20)]


def test_a_preview_counts_what_was_used_so_far(life: Metered) -> None:
    life.to(START + DAY)
    life.use(1312)
    preview = life.shop.post("/v1/invoices/create_preview", subscription=life.id)
    assert life.lines(preview) == [(1, 1500), (1000, 0), (312, 31)]
    assert preview["amount_due"] == 1531


def test_checkout_sells_a_base_fee_with_metered_use(shop: Running) -> None:
    price = _metered(shop, _meter(shop))
    session = shop.checkout(shop.price(1500)["id"], **{"line_items[1][price]": price})
    assert session["amount_total"] == 1500
    assert "Varies with usage" in httpx.get(session["url"]).text
    assert shop.pay(session).status_code == 303
    found = shop.get(f"/v1/checkout/sessions/{session['id']}?expand[]=subscription&expand[]=line_items")
    items = found["subscription"]["items"]["data"]
    assert [item.get("quantity") for item in items] == [1, None]


def test_a_price_shows_its_tiers_only_when_asked(shop: Running) -> None:
    price = _metered(shop, _meter(shop))
    assert "tiers" not in shop.get(f"/v1/prices/{price}")
    tiers = shop.get(f"/v1/prices/{price}?expand[]=tiers")["tiers"]
    assert [(tier["up_to"], tier["unit_amount"], tier["unit_amount_decimal"]) for tier in tiers] == [
        (1000, 0, "0"),
        (None, None, "0.1"),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"tiers[0][up_to]": "inf", "tiers[0][unit_amount]": "1", "tiers[1][up_to]": "5", "tiers[1][unit_amount]": "1"},
        {"tiers[0][up_to]": "5", "tiers[0][unit_amount]": "1"},
        {"tiers[0][up_to]": "inf"},
        {"tiers[0][up_to]": "inf", "tiers[0][unit_amount]": "1", "tiers[0][unit_amount_decimal]": "1"},
    ],
)
def test_tiers_that_make_no_sense_are_refused(shop: Running, wrong: dict[str, str]) -> None:
    product = shop.post("/v1/products", name="Downloads")["id"]
    error = shop.refused(
        "/v1/prices",
        product=product,
        currency="usd",
        billing_scheme="tiered",
        tiers_mode="graduated",
        **{
            "recurring[interval]": "month",
            "recurring[usage_type]": "metered",
            "recurring[meter]": _meter(shop)["id"],
        },
        **wrong,
    )
    assert error["param"].startswith("tiers[")


def test_a_deactivated_meter_reports_its_events_and_can_come_back(shop: Running) -> None:
    meter = _meter(shop)
    path = f"/v1/billing/meters/{meter['id']}"
    assert shop.post(f"{path}/deactivate")["status"] == "inactive"
    assert shop.post(f"{path}/reactivate")["status"] == "active"
    error = shop.refused(
        "/v1/billing/meters",
        display_name="Twice",
        event_name=meter["event_name"],
        **{"default_aggregation[formula]": "sum"},
    )
    assert error["code"] == "resource_already_exists"
    assert json.dumps(shop.get("/v1/billing/meters?status=active")).count(meter["id"]) == 1
