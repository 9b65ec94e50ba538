"""The default clock: wall time plus an offset in a file that others read."""

from __future__ import annotations

import contextlib
import threading
import time

import httpx
import pytest

from .conftest import Receiver, Running

DAY = 86_400


def test_advancing_writes_the_offset_and_moves_what_is_created_next(own: Running) -> None:
    answer = own.advance(seconds=10 * DAY)
    offset = int(own.clock_file.read_text())
    assert offset == answer["offset"]
    assert 10 * DAY <= offset <= 10 * DAY + 2
    assert abs(own.customer(None)["created"] - (time.time() + offset)) < 5
    target = answer["now"] + DAY
    assert own.advance(to=target)["now"] >= target
    assert int(own.clock_file.read_text()) > offset


@pytest.mark.parametrize("body", [{"seconds": -1}, {"to": 1}, {}, {"seconds": 1.5}, {"seconds": 1, "to": 2}, {"by": 1}])
def test_the_clock_never_moves_backwards_or_by_nonsense(own: Running, body: dict[str, float]) -> None:
    before = own.control("GET", "clock")["offset"]
    assert httpx.post(f"{own.url}/_sandbox/clock/advance", json=body).status_code == 400
    assert own.control("GET", "clock")["offset"] == before


def test_a_year_passes_in_order_and_the_answer_comes_when_all_is_done(own: Running, receiver: Receiver) -> None:
    customer = own.customer()["id"]
    monthly, yearly = own.price(2900)["id"], own.price(29_000, "year")["id"]
    first, second = own.subscribe(customer, monthly), own.subscribe(customer, yearly)
    # The first thing to come is the announcement of the first renewal.
    assert own.control("GET", "clock")["next_due"] == first["items"]["data"][0]["current_period_end"] - 7 * DAY
    own.advance(to=first["created"] + 366 * DAY)
    invoices = own.get(f"/v1/invoices?customer={customer}&limit=100")["data"]
    assert [invoice["status"] for invoice in invoices] == ["paid"] * (2 + 12 + 1)
    created = [event["created"] for event in own.events(type="invoice.paid")]
    assert created == sorted(created)
    assert own.get(f"/v1/subscriptions/{second['id']}")["items"]["data"][0]["current_period_end"] > created[-1]
    own.drain(30)
    assert len(receiver.of("invoice.paid")) == 15


def test_each_delivery_of_due_work_finds_the_offset_already_there(own: Running, receiver: Receiver) -> None:
    subscription = own.subscribe(own.customer()["id"], own.price()["id"])
    end = subscription["items"]["data"][0]["current_period_end"]
    own.advance(to=end + 7200)
    paid = max(receiver.wait_for("invoice.paid", 2), key=lambda delivery: delivery.event["created"])
    assert paid.event["created"] == end + 3600
    assert paid.event["created"] <= paid.at + int(own.clock_file.read_text()) + 1


def test_wall_time_alone_moves_the_default_clock_too(own: Running, receiver: Receiver) -> None:
    subscription = own.subscribe(own.customer()["id"], own.price()["id"], trial_end=str(int(time.time()) + 2))
    receiver.wait_for("customer.subscription.updated", timeout=15)
    assert own.get(f"/v1/subscriptions/{subscription['id']}")["status"] == "active"


def test_a_clock_survives_a_kill_in_the_middle_of_an_advance(process: Running) -> None:
    price = process.price()["id"]
    customers = [process.customer()["id"] for _ in range(5)]
    for customer in customers:
        process.subscribe(customer, price)
    started = process.control("GET", "clock")["now"]

    def advance() -> None:
        with contextlib.suppress(httpx.HTTPError):  # killed while answering: what this test is about
            httpx.post(f"{process.url}/_sandbox/clock/advance", json={"to": started + 400 * DAY}, timeout=60)

    thread = threading.Thread(target=advance)
    thread.start()
    while process.control("GET", "clock")["offset"] < 60 * DAY:
        pass
    process.kill()
    thread.join()
    process.start()
    process.advance(to=started + 400 * DAY)
    for customer in customers:
        invoices = process.get(f"/v1/invoices?customer={customer}&limit=100")["data"]
        assert [invoice["status"] for invoice in invoices] == ["paid"] * 14
        numbers = [invoice["number"][-4:] for invoice in invoices][::-1]
        assert numbers == [f"{i:04d}" for i in range(1, 15)]
