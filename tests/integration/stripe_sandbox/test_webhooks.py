"""Delivery: signed at each try, retried, several at once, kept over a kill; and the knobs that disturb it."""

from __future__ import annotations

import json
import threading
import time
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from .conftest import SECRET, Receiver, Running


def _signed_at(signature: str) -> int:
    return int(signature.split(",")[0].removeprefix("t="))


def test_an_event_is_delivered_signed_within_milliseconds_of_its_commit(own: Running, receiver: Receiver) -> None:
    own.post("/v1/products", name="warm")
    receiver.wait_for("product.created")
    waits = []
    for i in range(10):
        own.post("/v1/products", name=f"p{i}")
        answered = time.time()
        waits.append(receiver.wait_for("product.created", i + 2)[-1].at - answered)
    assert sorted(waits)[5] < 0.1
    delivery = receiver.of("product.created")[-1]
    assert abs(_signed_at(delivery.signature) - time.time()) < 5
    assert delivery.event["pending_webhooks"] == 1
    own.drain()
    assert own.get(f"/v1/events/{delivery.event['id']}")["pending_webhooks"] == 0


def test_the_signature_uses_the_wall_clock_however_far_the_business_clock_went(
    own: Running, receiver: Receiver
) -> None:
    own.advance(seconds=300 * 86400)
    own.post("/v1/products", name="later")
    delivery = receiver.wait_for("product.created")[0]
    assert abs(_signed_at(delivery.signature) - time.time()) < 5
    assert delivery.event["created"] > time.time() + 299 * 86400


@pytest.mark.parametrize("answer", [500, 302, 404])
def test_a_failed_delivery_is_tried_again_with_a_new_time_and_signature(
    own: Running, receiver: Receiver, answer: int
) -> None:
    receiver.answers = [answer, answer, answer, answer]
    own.post("/v1/products", name="p")
    tries = receiver.wait_for("product.created", 5, timeout=20)
    assert {delivery.event["id"] for delivery in tries} == {tries[0].event["id"]}
    assert _signed_at(tries[-1].signature) > _signed_at(tries[0].signature)
    assert tries[-1].signature != tries[0].signature
    gaps = [b.at - a.at for a, b in pairwise(tries)]
    assert all(gap >= 0.1 * 2**i * 0.9 for i, gap in enumerate(gaps)), gaps
    own.drain()


def test_an_answer_that_takes_too_long_is_a_failure(tmp_path: Path, receiver: Receiver) -> None:
    options = ("--retry-base", "0.1", "--webhook-timeout", "0.3")
    own = Running(tmp_path / "s", receiver.url, options).start()
    try:
        receiver.holds = [threading.Event()]
        held = receiver.holds[0]
        own.post("/v1/products", name="slow")
        receiver.wait_for("product.created", 2)
        held.set()
        own.drain()
    finally:
        own.stop()


def test_an_endpoint_that_hangs_does_not_hold_up_the_others(own: Running, receiver: Receiver) -> None:
    stuck = threading.Event()
    receiver.holds = [stuck] * 3
    for i in range(20):
        own.post("/v1/products", name=f"p{i}")
    receiver.wait_for("product.created", 20)
    assert own.control("GET", "deliveries")["counts"]["pending"] >= 3
    stuck.set()
    own.drain()


def test_pending_deliveries_and_their_retries_survive_a_kill(process: Running, receiver: Receiver) -> None:
    receiver.answers = [500] * 3
    for i in range(3):
        process.post("/v1/products", name=f"p{i}")
    receiver.wait_for("product.created", 3)
    process.kill()
    process.start()
    receiver.wait_for("product.created", 6)
    process.drain()
    assert len({delivery.event["id"] for delivery in receiver.deliveries}) == 3
    assert process.control("GET", "deliveries")["counts"] == {"pending": 0, "succeeded": 3, "failed": 0, "dropped": 0}


def test_state_survives_a_kill_and_the_preset_endpoint_is_not_doubled(process: Running, receiver: Receiver) -> None:
    customer = process.customer()
    first = process.call("POST", "/v1/products", {"name": "kept"}, Idempotency_Key="kept")
    process.kill()
    process.start()
    assert process.get(f"/v1/customers/{customer['id']}") == customer
    assert process.call("POST", "/v1/products", {"name": "kept"}, Idempotency_Key="kept").json() == first.json()
    assert len(process.get("/v1/webhook_endpoints")["data"]) == 1


def test_a_delivery_given_up_is_found_by_the_events_filter_and_can_be_sent_again(
    tmp_path: Path, receiver: Receiver
) -> None:
    own = Running(tmp_path / "s", receiver.url, ("--retry-base", "0.05", "--retry-attempts", "2")).start()
    try:
        receiver.answers = [500, 500]
        product = own.post("/v1/products", name="lost")
        receiver.wait_for("product.created", 2)
        own.drain()
        own.post("/v1/products", name="found")
        own.drain()
        failed = own.get("/v1/events?delivery_success=false")["data"]
        assert [event["data"]["object"]["id"] for event in failed] == [product["id"]]
        assert failed[0]["pending_webhooks"] == 1
        assert own.control("GET", "deliveries")["failed"][0]["last_status"] == 500
        assert own.call("POST", f"/v1/events/{failed[0]['id']}/retry").status_code == 200
        receiver.wait_for("product.created", 4)
        own.drain()
        assert own.get("/v1/events?delivery_success=false")["data"] == []
    finally:
        own.stop()


def test_an_endpoint_gets_only_what_it_asked_for_and_its_secret_is_shown_once(own: Running) -> None:
    made = own.post("/v1/webhook_endpoints", url="http://127.0.0.1:9/", **{"enabled_events[0]": "price.created"})
    assert made["secret"].startswith("whsec_")
    assert "secret" not in own.get(f"/v1/webhook_endpoints/{made['id']}")
    own.price()
    waiting = [d["type"] for d in own.control("GET", "deliveries")["pending"] if d["endpoint"] == made["id"]]
    assert waiting == ["price.created"]
    own.post(f"/v1/webhook_endpoints/{made['id']}", disabled="true")
    own.price()
    assert len([d for d in own.control("GET", "deliveries")["pending"] if d["endpoint"] == made["id"]]) == 1
    assert own.call("DELETE", f"/v1/webhook_endpoints/{made['id']}").json()["deleted"] is True
    own.drain()


def test_duplicates_come_twice_and_drops_never(own: Running, receiver: Receiver) -> None:
    own.control("PUT", "faults", {"duplicate": True})
    own.post("/v1/products", name="twice")
    receiver.wait_for("product.created", 2)
    own.drain()
    own.control("PUT", "faults", {"duplicate": False, "drop": ["product.created"], "drop_next": 0})
    lost = own.post("/v1/products", name="never")
    own.drain()
    assert len(receiver.of("product.created")) == 2
    missed = own.get("/v1/events?delivery_success=false")["data"]
    assert [event["data"]["object"]["id"] for event in missed] == [lost["id"]]
    own.control("PUT", "faults", {"drop": [], "drop_next": 1})
    own.post("/v1/products", name="never")
    own.post("/v1/products", name="once")
    receiver.wait_for("product.created", 3)
    own.drain()
    assert receiver.of("product.created")[-1].event["data"]["object"]["name"] == "once"


def test_reordering_delivers_everything_once_in_some_other_order(own: Running, receiver: Receiver) -> None:
    own.control("PUT", "faults", {"reorder": True})
    customer = own.customer()["id"]
    price = own.price()["id"]
    own.drain()
    orders = set()
    for _ in range(3):
        before = len(receiver.deliveries)
        own.subscribe(customer, price)
        own.drain()
        orders.add(tuple(receiver.types()[before:]))
    sent = [delivery.event["id"] for delivery in receiver.deliveries]
    assert len(set(sent)) == len(sent) == len(own.events())
    assert len(orders) > 1


def test_a_delay_holds_events_back_and_drain_waits_for_them(own: Running, receiver: Receiver) -> None:
    own.control("PUT", "faults", {"webhook_delay_ms": 600})
    own.post("/v1/products", name="later")
    answered = time.time()
    short = own.control("POST", "deliveries/drain", {"timeout": 0.1})
    assert short == {"drained": False, "pending": 1}
    own.drain()
    assert receiver.of("product.created")[0].at - answered > 0.5


@pytest.mark.parametrize(("status", "kind"), [(429, "invalid_request_error"), (500, "api_error"), (503, "api_error")])
def test_api_errors_hit_the_next_calls_under_a_path_and_then_stop(own: Running, status: int, kind: str) -> None:
    own.control("PUT", "faults", {"api_error": {"status": status, "next": 2, "path": "/v1/customers"}})
    assert own.call("GET", "/v1/products").status_code == 200
    answers = [own.call("POST", "/v1/customers", {"email": "e@example.com"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 200]
    assert answers[0].json()["error"]["type"] == kind
    assert len(own.get("/v1/customers")["data"]) == 1
    assert own.control("GET", "faults")["api_error"] is None


def test_an_error_after_the_work_leaves_the_work_and_its_answer_for_the_key(own: Running) -> None:
    own.control("PUT", "faults", {"api_error": {"status": 500, "after": True}})
    first = own.call("POST", "/v1/customers", {"email": "e@example.com"}, Idempotency_Key="after")
    again = own.call("POST", "/v1/customers", {"email": "e@example.com"}, Idempotency_Key="after")
    assert (first.status_code, again.status_code) == (500, 200)
    assert [customer["id"] for customer in own.get("/v1/customers")["data"]] == [again.json()["id"]]


def test_a_hanging_call_is_carried_out_and_its_retry_gets_the_answer(own: Running) -> None:
    own.control("PUT", "faults", {"hang_next": 1})
    headers = {"Authorization": "Bearer sk_test_x", "Idempotency-Key": "hang"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{own.url}/v1/customers", data={"email": "e@example.com"}, headers=headers, timeout=0.5)
    deadline = time.monotonic() + 5
    while (
        again := own.call("POST", "/v1/customers", {"email": "e@example.com"}, Idempotency_Key="hang")
    ).status_code == 409:
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(own.get("/v1/customers")["data"]) == 1


@pytest.mark.parametrize(
    "body", [{"colour": 1}, {"latency_ms": "1"}, {"api_error": {"status": 418}}, {"drop": "all"}, {"duplicate": 1}]
)
def test_a_knob_that_does_not_exist_is_refused_and_changes_nothing(own: Running, body: dict[str, object]) -> None:
    before = own.control("GET", "faults")
    answer = httpx.put(f"{own.url}/_sandbox/faults", content=json.dumps({"hang_next": 5, **body}))
    assert answer.status_code == 400
    assert own.control("GET", "faults") == before


def test_no_secret_leaves_by_events_or_objects(own: Running, receiver: Receiver) -> None:
    own.subscribe(own.customer()["id"], own.price()["id"])
    own.drain()
    everything = own.call("GET", "/v1/events?limit=100").text + "".join(map(str, receiver.deliveries))
    for secret in (SECRET, "whsec_", '"_number"', '"_token"', "4242424242424242"):
        assert secret not in everything


def test_a_second_sandbox_on_the_same_state_does_not_start(process: Running) -> None:
    second = Running(process.state)
    with pytest.raises(AssertionError, match="ended at start"):
        second.start()
