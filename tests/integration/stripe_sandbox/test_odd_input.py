"""Whatever is sent, the sandbox answers as Stripe would: an error that names the fault, never a failure of its own."""

from __future__ import annotations

import pytest

import local.stripe_sandbox.api  # noqa: F401 - registers the routes
from local.stripe_sandbox.routing import Route, routes

from .conftest import Running

_ODD = ("", "x", "-1", "0", "99999999999", "1.5", "true", "null", "{}", "\x00", "ü" * 6000)
_SHAPES = ("{}", "{}[]", "{}[0]", "{}[0][a]", "{}[a]", "{}[a][b]", "{}[enabled]", "{}[type]", "{}[0][id]", "{}[price]")


def _objects(shop: Running) -> dict[str, str]:
    price = shop.price()
    customer = shop.customer()
    subscription = shop.subscribe(customer["id"], price["id"])
    open_ = shop.subscribe(shop.customer("pm_card_chargeCustomerFail")["id"], price["id"])
    payment = shop.get(f"/v1/invoice_payments?invoice={open_['latest_invoice']}")["data"][0]
    intent = payment["payment"]["payment_intent"]
    disputed = shop.subscribe(shop.customer("pm_card_createDispute")["id"], price["id"])["latest_invoice"]
    dispute = shop.get("/v1/disputes?limit=1")["data"][0]["id"]
    refunded = shop.subscribe(shop.customer()["id"], price["id"])["latest_invoice"]
    coupon = shop.post("/v1/coupons", percent_off="5")["id"]
    meter = shop.post(
        "/v1/billing/meters",
        display_name="Uses",
        event_name=f"uses_of_{disputed}",
        **{"default_aggregation[formula]": "sum"},
    )
    return {
        "dispute": dispute,
        "refund": shop.control("POST", "refunds", {"invoice": refunded, "amount": 1})["id"],
        "coupon": coupon,
        "code": shop.post("/v1/promotion_codes", **{"promotion[type]": "coupon", "promotion[coupon]": coupon})["id"],
        "meter": meter["id"],
        "source": customer["invoice_settings"]["default_payment_method"],
        "transaction": shop.post(f"/v1/customers/{customer['id']}/balance_transactions", amount="-1", currency="usd")[
            "id"
        ],
        "product": price["product"],
        "price": price["id"],
        "customer": customer["id"],
        "subscription": subscription["id"],
        "invoice": open_["latest_invoice"],
        "payment": payment["id"],
        "intent": intent,
        "charge": shop.get(f"/v1/payment_intents/{intent}")["latest_charge"],
        "method": customer["invoice_settings"]["default_payment_method"],
        "session": shop.checkout(price["id"])["id"],
        "item": shop.post("/v1/invoiceitems", customer=customer["id"], amount="1", currency="usd")["id"],
        "clock": shop.post("/v1/test_helpers/test_clocks", frozen_time="1800000000")["id"],
        "event": shop.get("/v1/events?limit=1")["data"][0]["id"],
        "endpoint": shop.post("/v1/webhook_endpoints", url="http://127.0.0.1:9/", **{"enabled_events[0]": "x"})["id"],
        "configuration": shop.post(
            "/v1/billing_portal/configurations", **{"features[invoice_history][enabled]": "true"}
        )["id"],
        "account": shop.get("/v1/account")["id"],
    }


def _all_routes() -> list[Route]:
    return list(routes)


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """An object of each kind by the name that paths give it; made anew for routes that delete."""
    return {}


@pytest.mark.parametrize("route", _all_routes(), ids=lambda route: f"{route.method} {route.path}")
def test_no_parameter_of_any_route_can_make_it_fail(shop: Running, made: dict[str, str], route: Route) -> None:
    fields = [*route.fields, "flow_data", "expected_amount", "webhook_endpoint"]
    if not made or route.method == "DELETE":
        made.update(_objects(shop))
    objects = made
    path = route.path.format(**objects)
    good = {"customer": objects["customer"], "currency": "usd", "name": "n", "amount": "1", "type": "card"}
    base = {name: value for name, value in good.items() if name in route.required}
    for i, field in enumerate(fields):
        for j, shape in enumerate(_SHAPES):
            data = base | {shape.format(field): _ODD[(i + j) % len(_ODD)]}
            if route.method == "GET" or route.method == "DELETE":
                answer = shop.client.request(route.method, f"{shop.url}{path}", params=data)
            else:
                answer = shop.client.request(route.method, f"{shop.url}{path}", data=data)
            assert answer.status_code in (200, 400, 402, 404, 429), f"{data}: {answer.status_code} {answer.text}"
            if answer.status_code != 200:
                assert answer.json()["error"]["message"]
    if route.method == "DELETE":
        made.clear()


@pytest.mark.parametrize("route", [r for r in _all_routes() if "{" in r.path], ids=lambda r: f"{r.method} {r.path}")
def test_an_object_of_another_kind_is_never_taken_for_this_one(shop: Running, route: Route) -> None:
    stranger = shop.get("/v1/account")["id"] if "account" not in route.path else "acct_x"
    product = shop.post("/v1/products", name="stranger")["id"] if "{product}" not in route.path else stranger
    for other in (stranger, product, "nobody", "%00", "..%2F.."):
        path = route.path.replace("{", "\0").split("\0")
        text = path[0] + "".join(other + part.split("}", 1)[1] for part in path[1:])
        answer = shop.client.request(route.method, f"{shop.url}{text}")
        assert answer.status_code in (400, 404), f"{text}: {answer.status_code} {answer.text}"
