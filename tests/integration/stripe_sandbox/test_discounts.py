"""Coupons and promotion codes: who may redeem them, what they take off, for how long."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from .conftest import Running
from .timeline import DAY, HOUR, START, Timeline


def _coupon(shop: Running, **terms: str) -> str:
    return str(shop.post("/v1/coupons", **terms)["id"])


def _code(shop: Running, coupon: str, **more: str) -> dict[str, Any]:
    return shop.post("/v1/promotion_codes", **{"promotion[type]": "coupon", "promotion[coupon]": coupon, **more})


def _totals(life: Timeline) -> list[int]:
    return [invoice["total"] for invoice in life.invoices()]


def _renew(life: Timeline, subscription: str, times: int) -> None:
    for _ in range(times):
        life.to(life.subscription(subscription)["items"]["data"][0]["current_period_end"] + HOUR)


@pytest.mark.parametrize(
    ("terms", "totals"),
    [
        ({"percent_off": "25", "duration": "forever"}, [2175] * 4),
        ({"percent_off": "33.3", "duration": "once"}, [1934, 2900, 2900, 2900]),
        ({"amount_off": "1000", "currency": "usd", "duration": "once"}, [1900, 2900, 2900, 2900]),
        (
            {"percent_off": "50", "duration": "repeating", "duration_in_months": "3"},
            [1450, 1450, 1450, 2900],
        ),
        ({"percent_off": "100", "duration": "once"}, [0, 2900, 2900, 2900]),
        ({"amount_off": "9900", "currency": "usd", "duration": "once"}, [0, 2900, 2900, 2900]),
    ],
)
def test_a_discount_is_taken_off_as_often_as_its_coupon_says(
    fresh: Timeline, terms: dict[str, str], totals: list[int]
) -> None:
    coupon = _coupon(fresh.shop, **terms)
    subscription = fresh.subscribe(fresh.shop.price(2900)["id"], **{"discounts[0][coupon]": coupon})
    _renew(fresh, subscription, 3)
    assert _totals(fresh) == totals
    first = fresh.shop.get(f"/v1/invoices/{fresh.invoices()[0]['id']}?expand[]=discounts")
    assert first["discounts"][0]["source"]["coupon"] == coupon
    assert first["total_discount_amounts"] == [{"amount": 2900 - totals[0], "discount": first["discounts"][0]["id"]}]
    assert first["lines"]["data"][0]["discount_amounts"] == first["total_discount_amounts"]
    assert first["subtotal"] == 2900
    assert first["amount_paid"] == totals[0]
    going_on = fresh.subscription(subscription)["discounts"]
    assert len(going_on) == (1 if terms["duration"] == "forever" else 0)
    assert len(fresh.events(type="customer.discount.created")) == 1
    assert len(fresh.events(type="customer.discount.deleted")) == 1 - len(going_on)


def test_a_coupon_of_some_products_leaves_the_others_alone(shop: Running) -> None:
    chosen, other = shop.price(1000), shop.price(500)
    coupon = _coupon(shop, percent_off="50", **{"applies_to[products][0]": chosen["product"]})
    given = {"items[1][price]": other["id"], "discounts[0][coupon]": coupon}
    subscription = shop.subscribe(shop.customer()["id"], chosen["id"], **given)
    invoice = shop.get(f"/v1/invoices/{subscription['latest_invoice']}")
    taken = [[one["amount"] for one in line["discount_amounts"]] for line in invoice["lines"]["data"]]
    assert (taken, invoice["total"]) == ([[500], []], 1000)


def test_prorations_of_a_discounted_plan_are_discounted(fresh: Timeline) -> None:
    coupon = _coupon(fresh.shop, percent_off="50", duration="forever")
    subscription = fresh.subscribe(fresh.shop.price(2800)["id"], **{"discounts[0][coupon]": coupon})
    item = fresh.subscription(subscription)["items"]["data"][0]["id"]
    fresh.to(START + 14 * DAY)
    big = fresh.shop.price(5600)["id"]
    fresh.shop.post(
        f"/v1/subscriptions/{subscription}",
        proration_behavior="always_invoice",
        **{"items[0][id]": item, "items[0][price]": big},
    )
    assert [line["amount"] for line in fresh.invoices()[-1]["lines"]["data"]] == [-700, 1400]
    assert fresh.invoices()[-1]["total"] == 700


def test_a_discount_can_be_given_to_a_running_subscription_and_taken_away(fresh: Timeline) -> None:
    coupon = _coupon(fresh.shop, percent_off="10", duration="forever")
    subscription = fresh.subscribe(fresh.shop.price(1000)["id"])
    path = f"/v1/subscriptions/{subscription}"
    assert len(fresh.shop.post(path, **{"discounts[0][coupon]": coupon})["discounts"]) == 1
    _renew(fresh, subscription, 1)
    assert fresh.shop.post(path, discounts="")["discounts"] == []
    _renew(fresh, subscription, 1)
    assert _totals(fresh) == [1000, 900, 1000]


def test_a_coupon_runs_out_after_its_redemptions(shop: Running) -> None:
    coupon = _coupon(shop, percent_off="10", max_redemptions="1")
    price = shop.price()["id"]
    shop.subscribe(shop.customer()["id"], price, **{"discounts[0][coupon]": coupon})
    found = shop.get(f"/v1/coupons/{coupon}")
    assert (found["times_redeemed"], found["valid"]) == (1, False)
    given = {"customer": shop.customer()["id"], "items[0][price]": price, "discounts[0][coupon]": coupon}
    assert shop.refused("/v1/subscriptions", **given)["code"] == "coupon_expired"


def test_a_coupon_and_a_code_expire(own: Running) -> None:
    soon = str(int(time.time()) + 3600)
    coupon, lasting = _coupon(own, percent_off="10", redeem_by=soon), _coupon(own, percent_off="10")
    code = _code(own, lasting, code="SOON", expires_at=soon)
    own.advance(seconds=3700)
    assert own.get(f"/v1/coupons/{coupon}")["valid"] is False
    assert own.get(f"/v1/promotion_codes/{code['id']}")["active"] is False
    session = own.checkout(own.price()["id"], allow_promotion_codes="true")
    assert httpx.post(f"{session['url']}/promotion", data={"promotionCode": "SOON"}).status_code == 422


def test_a_deleted_coupon_is_not_redeemed_but_its_discounts_go_on(fresh: Timeline) -> None:
    coupon = _coupon(fresh.shop, percent_off="50", duration="forever")
    subscription = fresh.subscribe(fresh.shop.price(1000)["id"], **{"discounts[0][coupon]": coupon})
    assert fresh.shop.call("DELETE", f"/v1/coupons/{coupon}").json()["deleted"] is True
    _renew(fresh, subscription, 1)
    assert _totals(fresh) == [500, 500]
    given = {"customer": fresh.customer, "items[0][price]": "price_x", "discounts[0][coupon]": coupon}
    assert fresh.shop.refused("/v1/subscriptions", **given)["code"] == "resource_missing"


def test_a_code_typed_at_checkout_lowers_the_price_and_can_be_removed(shop: Running) -> None:
    coupon = _coupon(shop, percent_off="20", duration="once")
    code = _code(shop, coupon, code=f"Spring{int(time.time() * 1000)}")
    session = shop.checkout(shop.price(2900)["id"], allow_promotion_codes="true")
    assert "Promotion code" in httpx.get(session["url"]).text
    wrong = httpx.post(f"{session['url']}/promotion", data={"promotionCode": "NOPE"})
    assert (wrong.status_code, "This code is invalid." in wrong.text) == (422, True)
    data = {"promotionCode": code["code"].lower()}
    page = httpx.post(f"{session['url']}/promotion", data=data, follow_redirects=True).text
    for text in (code["code"], "20% off once", "-$5.80", "$23.20"):
        assert text in page
    found = shop.get(f"/v1/checkout/sessions/{session['id']}")
    assert (found["amount_subtotal"], found["amount_total"]) == (2900, 2320)
    assert found["discounts"] == [{"coupon": None, "promotion_code": code["id"]}]
    httpx.post(f"{session['url']}/promotion", data={"promotionCode": ""})
    assert shop.get(f"/v1/checkout/sessions/{session['id']}")["amount_total"] == 2900
    httpx.post(f"{session['url']}/promotion", data=data)
    assert shop.pay(session).status_code == 303
    done = shop.get(f"/v1/checkout/sessions/{session['id']}?expand[]=invoice.discounts")
    assert done["invoice"]["amount_paid"] == 2320
    assert done["invoice"]["discounts"][0]["promotion_code"] == code["id"]
    assert shop.get(f"/v1/promotion_codes/{code['id']}")["times_redeemed"] == 1


def test_codes_are_only_taken_where_they_are_allowed(shop: Running) -> None:
    code = _code(shop, _coupon(shop, percent_off="20"))
    session = shop.checkout(shop.price(2900)["id"])
    assert "Promotion code" not in httpx.get(session["url"]).text
    httpx.post(f"{session['url']}/promotion", data={"promotionCode": code["code"]})
    assert shop.get(f"/v1/checkout/sessions/{session['id']}")["amount_total"] == 2900


def test_a_code_used_up_meanwhile_is_refused_when_the_second_pays(shop: Running) -> None:
    code = _code(shop, _coupon(shop, percent_off="20"), max_redemptions="1")
    sessions = [shop.checkout(shop.price(2900)["id"], allow_promotion_codes="true") for _ in range(2)]
    for session in sessions:
        answer = httpx.post(f"{session['url']}/promotion", data={"promotionCode": code["code"]})
        assert answer.status_code == 303
    assert shop.pay(sessions[0]).status_code == 303
    assert "not active any more" in shop.pay(sessions[1]).text
    assert shop.get(f"/v1/checkout/sessions/{sessions[1]['id']}")["status"] == "open"


def test_restrictions_say_who_may_redeem_a_code(shop: Running) -> None:
    coupon = _coupon(shop, percent_off="20")
    price = shop.price(2900)["id"]
    regular, newcomer = shop.customer()["id"], shop.customer()["id"]
    shop.subscribe(regular, price)
    first = _code(shop, coupon, **{"restrictions[first_time_transaction]": "true"})["id"]
    large = _code(
        shop, coupon, **{"restrictions[minimum_amount]": "5000", "restrictions[minimum_amount_currency]": "usd"}
    )["id"]
    own = _code(shop, coupon, customer=regular)["id"]

    def given(customer: str, code: str) -> dict[str, str]:
        return {"customer": customer, "items[0][price]": price, "discounts[0][promotion_code]": code}

    assert "prior transactions" in shop.refused("/v1/subscriptions", **given(regular, first))["message"]
    assert "$50.00" in shop.refused("/v1/subscriptions", **given(newcomer, large))["message"]
    assert "not for this customer" in shop.refused("/v1/subscriptions", **given(newcomer, own))["message"]
    assert shop.post("/v1/subscriptions", **given(newcomer, first))["status"] == "active"
    assert shop.post("/v1/subscriptions", **given(regular, own))["status"] == "active"


def test_a_discount_given_with_the_session_excludes_codes(shop: Running) -> None:
    coupon = _coupon(shop, amount_off="500", currency="usd")
    price = shop.price(2900)["id"]
    session = shop.checkout(price, **{"discounts[0][coupon]": coupon})
    assert session["amount_total"] == 2400
    error = shop.refused(
        "/v1/checkout/sessions",
        mode="subscription",
        success_url="https://shop.example/",
        allow_promotion_codes="true",
        **{"line_items[0][price]": price, "line_items[0][quantity]": "1", "discounts[0][coupon]": coupon},
    )
    assert error["param"] == "allow_promotion_codes"


def test_lists_find_codes_by_word_and_coupon(shop: Running) -> None:
    coupon = _coupon(shop, percent_off="5", name="Five")
    word = f"FIVE{int(time.time() * 1000)}"
    code = _code(shop, coupon, code=word)
    for query in (f"code={word.lower()}", f"coupon={coupon}"):
        assert [one["id"] for one in shop.get(f"/v1/promotion_codes?{query}")["data"]] == [code["id"]]
    given = {"promotion[type]": "coupon", "promotion[coupon]": coupon}
    assert shop.refused("/v1/promotion_codes", **given, code=word)["code"] == "resource_already_exists"
    assert shop.post(f"/v1/promotion_codes/{code['id']}", active="false")["active"] is False
