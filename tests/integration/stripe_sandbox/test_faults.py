"""Knobs for faults: calls that fail, or are never answered, by route and count; deliveries lost by pattern."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import stripe

from .conftest import Receiver, Running


@pytest.fixture
def calm(shop: Running) -> Iterator[Running]:
    yield shop
    shop.control("PUT", "faults", {"reset": True})


def _name(shop: Running, key: str | None = None, timeout: float = 0.7) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return shop.client.post(f"{shop.url}/v1/customers", data={"name": "x"}, headers=headers, timeout=timeout)


def _count(shop: Running) -> int:
    return len(shop.get("/v1/customers?limit=100")["data"])


def test_a_fault_strikes_one_route_and_method_after_letting_some_through(calm: Running) -> None:
    fault = {"status": 503, "path": "/v1/subscriptions/*", "method": "POST", "skip": 1, "next": 2}
    calm.control("PUT", "faults", {"api_errors": [fault]})
    subscription = calm.subscribe(calm.customer()["id"], calm.price()["id"])["id"]
    path = f"/v1/subscriptions/{subscription}"
    statuses = [calm.call("POST", path, {"description": "d"}).status_code for _ in range(4)]
    assert statuses == [200, 503, 503, 200]
    calm.control("PUT", "faults", {"api_errors": [fault | {"skip": 0}]})
    assert calm.call("GET", path).status_code == 200


def test_several_faults_lie_in_wait_at_once(calm: Running) -> None:
    faults = [{"status": 500, "path": "/v1/customers"}, {"status": 429, "path": "/v1/products"}]
    calm.control("PUT", "faults", {"api_errors": faults})
    assert calm.call("POST", "/v1/products", {"name": "x"}).status_code == 429
    assert _name(calm).status_code == 500
    assert calm.control("GET", "faults")["api_errors"] == []


@pytest.mark.parametrize(("after", "made"), [(False, 0), (True, 1)])
def test_a_call_that_is_never_answered_was_carried_out_or_not(calm: Running, after: bool, made: int) -> None:
    before = _count(calm)
    calm.control("PUT", "faults", {"api_errors": [{"status": "hang", "path": "/v1/customers", "after": after}]})
    with pytest.raises(httpx.ReadTimeout):
        _name(calm, key=f"lost-{after}")
    assert _count(calm) == before + made
    again = _name(calm, key=f"lost-{after}", timeout=30)
    assert again.status_code == 200
    assert again.headers.get("idempotent-replayed") == ("true" if after else None)
    assert _count(calm) == before + 1


@pytest.mark.parametrize(("after", "made"), [(False, 0), (True, 1)])
def test_a_connection_that_is_cut_tells_nothing_of_whether_the_call_was_carried_out(
    calm: Running, after: bool, made: int
) -> None:
    before = _count(calm)
    calm.control("PUT", "faults", {"api_errors": [{"status": "cut", "path": "/v1/customers", "after": after}]})
    with pytest.raises(httpx.RemoteProtocolError):
        _name(calm, key=f"cut-{after}", timeout=30)
    assert _count(calm) == before + made
    again = _name(calm, key=f"cut-{after}", timeout=30)
    assert again.headers.get("idempotent-replayed") == ("true" if after else None)
    assert _count(calm) == before + 1


async def test_the_library_retries_a_429_only_when_told(calm: Running) -> None:
    http = stripe.HTTPXClient(timeout=httpx.Timeout(10))
    client = stripe.StripeClient("sk_test_x", base_addresses={"api": calm.url}, http_client=http, max_network_retries=2)
    fault = {"status": 429, "path": "/v1/customers", "should_retry": True}
    calm.control("PUT", "faults", {"api_errors": [fault]})
    assert (await client.v1.customers.create_async({"name": "told"})).name == "told"
    calm.control("PUT", "faults", {"api_errors": [fault | {"should_retry": None}]})
    with pytest.raises(stripe.RateLimitError):
        await client.v1.customers.create_async({"name": "untold"})
    await http.close_async()  # type: ignore[no-untyped-call]


def test_a_500_is_the_stored_answer_of_its_key(calm: Running) -> None:
    calm.control("PUT", "faults", {"api_errors": [{"status": 500, "path": "/v1/customers"}]})
    assert _name(calm, key="stored-500").status_code == 500
    assert _name(calm, key="stored-500").status_code == 500
    assert _name(calm, key="stored-501").status_code == 200


def test_deliveries_are_lost_by_pattern(own: Running, receiver: Receiver) -> None:
    own.control("PUT", "faults", {"drop": ["customer.subscription.*", "invoice.finalized"]})
    own.subscribe(own.customer()["id"], own.price()["id"])
    own.drain()
    types = receiver.types()
    assert "invoice.paid" in types
    assert not [name for name in types if name.startswith("customer.subscription") or name == "invoice.finalized"]


def test_chance_delays_let_changes_overtake_one_another(own: Running, receiver: Receiver) -> None:
    own.control("PUT", "faults", {"webhook_jitter_ms": 400})
    made = [own.post("/v1/products", name=str(n))["id"] for n in range(30)]
    own.drain()
    arrived = [delivery.event["data"]["object"]["id"] for delivery in receiver.of("product.created")]
    assert sorted(arrived) == sorted(made)
    assert arrived != made


@pytest.mark.parametrize("order", ["made", "reversed", "shuffled"])
def test_the_whole_log_can_be_sent_again_in_any_order(own: Running, receiver: Receiver, order: str) -> None:
    made = [own.post("/v1/products", name=str(n))["id"] for n in range(12)]
    own.post("/v1/coupons", percent_off="5")
    own.drain()
    receiver.deliveries.clear()
    assert own.control("POST", "deliveries/replay", {"order": order, "types": ["product.created"]}) == {
        "deliveries": 12
    }
    own.drain()
    arrived = [delivery.event["data"]["object"]["id"] for delivery in receiver.deliveries]
    assert sorted(arrived) == sorted(made)
    if order == "reversed":
        assert arrived.index(made[-1]) < arrived.index(made[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_errors": {"status": 500}},
        {"api_errors": [{"path": "/v1/"}]},
        {"api_errors": [{"status": 500, "next": 0}]},
        {"api_errors": [{"status": 500, "method": "PATCH"}]},
        {"api_errors": [{"status": "slow"}]},
        {"api_errors": [{"status": 500, "colour": "red"}]},
    ],
)
def test_wrong_faults_are_refused(calm: Running, wrong: dict[str, object]) -> None:
    assert calm.client.put(f"{calm.url}/_sandbox/faults", json=wrong).status_code == 400
    assert calm.control("GET", "faults")["api_errors"] == []
