"""How the API answers: keys, errors, idempotency, pagination, expansion."""

from __future__ import annotations

import threading

import httpx
import pytest
import stripe

from .conftest import Running


def test_a_call_without_a_key_or_with_a_live_key_is_refused(shop: Running) -> None:
    bare = httpx.get(f"{shop.url}/v1/customers")
    assert bare.status_code == 401
    assert bare.json()["error"]["type"] == "invalid_request_error"
    live = shop.call("GET", "/v1/customers", Authorization="Bearer sk_live_abcdefghij")
    assert live.status_code == 401
    assert "abcdefghij" not in live.text
    assert httpx.get(f"{shop.url}/v1/customers", auth=("sk_test_x", "")).status_code == 200


def test_an_unknown_url_is_404_with_stripes_sentence(shop: Running) -> None:
    error = shop.refused("/v1/nothing", 404, "GET")
    assert error["message"].startswith("Unrecognized request URL (GET: /v1/nothing).")
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "data", "param"),
    [
        ("/v1/customers", {"nickname": "x"}, "nickname"),
        ("/v1/customers", {"invoice_settings[colour]": "x"}, "invoice_settings[colour]"),
        ("/v1/prices", {"currency": "usd", "recurring[every]": "month"}, "recurring[every]"),
        ("/v1/checkout/sessions", {"payment_method_types[0]": "card"}, "payment_method_types"),
    ],
)
def test_an_unknown_parameter_is_named(shop: Running, path: str, data: dict[str, str], param: str) -> None:
    error = shop.refused(path, **data)
    assert error["code"] == "parameter_unknown"
    assert error["param"] == param
    assert error["message"] == f"Received unknown parameter: {param}"
    assert error["doc_url"] == "https://stripe.com/docs/error-codes/parameter-unknown"


def test_a_missing_parameter_and_a_missing_object_are_named(shop: Running) -> None:
    assert shop.refused("/v1/products")["code"] == "parameter_missing"
    gone = shop.refused("/v1/customers/cus_none", 404, "GET")
    assert (gone["code"], gone["message"]) == ("resource_missing", "No such customer: 'cus_none'")
    named = shop.refused("/v1/subscriptions", customer="cus_none", **{"items[0][price]": "price_none"})
    assert (named["code"], named["param"]) == ("resource_missing", "customer")


@pytest.mark.parametrize(
    "data", [{"unit_amount": "1.5"}, {"unit_amount": "-1"}, {"unit_amount": "9" * 30}, {"unit_amount": "ten"}]
)
def test_amounts_that_are_no_whole_non_negative_numbers_are_refused(shop: Running, data: dict[str, str]) -> None:
    product = shop.post("/v1/products", name="P")
    error = shop.refused("/v1/prices", product=product["id"], currency="usd", **data)
    assert (error["code"], error["param"]) == ("parameter_invalid_integer", "unit_amount")


def test_every_answer_carries_a_request_id_and_the_version(shop: Running) -> None:
    answers = [shop.call("GET", "/v1/customers"), shop.call("GET", "/v1/nothing")]
    assert len({answer.headers["Request-Id"] for answer in answers}) == 2
    assert {answer.headers["Stripe-Version"] for answer in answers} == {stripe.api_version}


def test_a_repeated_key_replays_the_first_answer_and_does_nothing(shop: Running) -> None:
    first = shop.call("POST", "/v1/customers", {"email": "k@example.com"}, Idempotency_Key="k-1")
    again = shop.call("POST", "/v1/customers", {"email": "k@example.com"}, Idempotency_Key="k-1")
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Original-Request"] == first.headers["Request-Id"]
    assert len(shop.get("/v1/customers?email=k@example.com")["data"]) == 1


def test_a_key_used_with_other_parameters_is_an_error(shop: Running) -> None:
    shop.call("POST", "/v1/customers", {"email": "a@example.com"}, Idempotency_Key="k-2")
    other = shop.call("POST", "/v1/customers", {"email": "b@example.com"}, Idempotency_Key="k-2")
    assert other.status_code == 400
    assert other.json()["error"]["type"] == "idempotency_error"


def test_a_500_is_replayed_and_a_refused_parameter_is_not(shop: Running) -> None:
    shop.control("PUT", "faults", {"api_error": {"status": 500, "path": "/v1/customers"}})
    first = shop.call("POST", "/v1/customers", {"email": "c@example.com"}, Idempotency_Key="k-3")
    again = shop.call("POST", "/v1/customers", {"email": "c@example.com"}, Idempotency_Key="k-3")
    assert (first.status_code, again.status_code) == (500, 500)
    assert first.json() == again.json()
    assert shop.call("POST", "/v1/customers", {"wrong": "x"}, Idempotency_Key="k-4").status_code == 400
    assert shop.call("POST", "/v1/customers", {"email": "d@example.com"}, Idempotency_Key="k-4").status_code == 200


def test_a_declined_payment_is_replayed_and_charged_once(shop: Running) -> None:
    price = shop.price()
    customer = shop.customer("pm_card_chargeCustomerFail")
    subscription = shop.subscribe(customer["id"], price["id"])
    path = f"/v1/invoices/{subscription['latest_invoice']}/pay"
    answers = [shop.call("POST", path, {}, Idempotency_Key="k-5") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [402, 402]
    assert answers[0].json()["error"]["decline_code"] == "generic_decline"
    assert len(shop.get(f"/v1/charges?customer={customer['id']}")["data"]) == 2  # at the start, and once by hand


def test_a_key_in_use_is_a_conflict(shop: Running) -> None:
    shop.control("PUT", "faults", {"latency_ms": 700})
    answers: list[int] = []

    def call() -> None:
        answers.append(shop.call("POST", "/v1/customers", {"name": "n"}, Idempotency_Key="k-6").status_code)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shop.control("PUT", "faults", {"latency_ms": 0})
    assert sorted(answers) == [200, 409]


def test_the_library_pages_through_everything_once(shop: Running, client: stripe.StripeClient) -> None:
    made = [client.v1.products.create({"name": f"Page {i}", "metadata": {"set": "pages"}}).id for i in range(25)]
    found = [
        p.id
        for p in client.v1.products.list({"limit": 7}).auto_paging_iter()
        if p.metadata.to_dict().get("set") == "pages"
    ]
    assert found == made[::-1]
    page = shop.get(f"/v1/products?limit=5&starting_after={made[10]}")
    assert [p["id"] for p in page["data"]] == made[5:10][::-1]
    back = shop.get(f"/v1/products?limit=5&ending_before={made[10]}")
    assert [p["id"] for p in back["data"]] == made[11:16][::-1]
    assert back["has_more"]
    assert shop.refused("/v1/products?limit=0", 400, "GET")["param"] == "limit"
    assert shop.refused("/v1/products?starting_after=prod_none", 400, "GET")["code"] == "resource_missing"


def test_expand_follows_ids_and_brings_sub_lists_only_when_asked(shop: Running) -> None:
    price = shop.price()
    subscription = shop.subscribe(shop.customer()["id"], price["id"])
    path = f"/v1/subscriptions/{subscription['id']}"
    assert isinstance(shop.get(path)["latest_invoice"], str)
    full = shop.get(f"{path}?expand[]=latest_invoice.payments&expand[]=items.data.price.product&expand[]=customer")
    assert full["items"]["data"][0]["price"]["product"]["name"] == "Pro"
    assert full["customer"]["email"] == "jenny@example.com"
    assert full["latest_invoice"]["payments"]["data"][0]["status"] == "paid"
    assert "payments" not in shop.get(f"/v1/invoices/{subscription['latest_invoice']}")
    wrong = shop.refused(f"{path}?expand[]=colour", 400, "GET")
    assert wrong["message"] == "This property cannot be expanded (colour)."


def test_metadata_is_merged_by_key_and_removed_by_empty_values(shop: Running) -> None:
    customer = shop.post("/v1/customers", **{"metadata[a]": "1", "metadata[b]": "2"})
    path = f"/v1/customers/{customer['id']}"
    assert shop.post(path, **{"metadata[b]": "", "metadata[c]": "3"})["metadata"] == {"a": "1", "c": "3"}
    assert shop.post(path, metadata="")["metadata"] == {}


def test_a_lookup_key_belongs_to_one_price_and_moves_only_when_told(shop: Running) -> None:
    old = shop.price(lookup_key="pro_monthly")
    new = {"product": old["product"], "currency": "usd", "unit_amount": "3900", "lookup_key": "pro_monthly"}
    assert shop.refused("/v1/prices", **new)["param"] == "lookup_key"
    moved = shop.post("/v1/prices", **new, transfer_lookup_key="true")
    found = shop.get("/v1/prices?lookup_keys[]=pro_monthly&lookup_keys[]=other&active=true")
    assert [price["id"] for price in found["data"]] == [moved["id"]]
    assert shop.get(f"/v1/prices/{old['id']}")["lookup_key"] is None


def test_a_deleted_customer_says_so_and_loses_its_subscriptions(shop: Running, client: stripe.StripeClient) -> None:
    customer = shop.customer()
    subscription = shop.subscribe(customer["id"], shop.price()["id"])
    client.v1.customers.delete(customer["id"])
    assert client.v1.customers.retrieve(customer["id"]).deleted is True
    assert shop.get(f"/v1/subscriptions/{subscription['id']}")["status"] == "canceled"


async def test_the_asynchronous_library_works_unmodified(shop: Running) -> None:
    http = stripe.HTTPXClient(timeout=10)
    client = stripe.StripeClient("sk_test_x", base_addresses={"api": shop.url}, http_client=http)
    try:
        customer = await client.v1.customers.create_async({"email": "async@example.com"}, {"idempotency_key": "a-1"})
        again = await client.v1.customers.create_async({"email": "async@example.com"}, {"idempotency_key": "a-1"})
        assert again.id == customer.id
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await client.v1.subscriptions.create_async({"customer": customer.id, "items": [{"price": "price_none"}]})
        assert caught.value.code == "resource_missing"
        assert caught.value.param == "items[0][price]"
    finally:
        await http.close_async()  # type: ignore[no-untyped-call]
