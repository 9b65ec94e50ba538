"""What is sent to whom, and what a try leaves behind."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notify import domain
from services.notify.domain import Addressee, Brand, Invoice, PaymentFailed, Receipt, State

INVOICE = Invoice(
    id="in_1",
    number="ABCD-0001",
    amount_due=2900,
    amount_paid=2900,
    currency="usd",
    hosted_url="https://invoice.example/1",
    pdf_url="https://invoice.example/1/pdf",
)
TO = Addressee(
    account_id="acct_1",
    account_name="Ada",
    contact_email="contact@example.com",
    customer_email="customer@example.com",
    brand=Brand("Skytale", "mailto:help@example.com", "#4f46e5", "https://app.example/billing"),
)
RECEIPT = Receipt(TO, INVOICE, datetime(2026, 3, 1, tzinfo=UTC))
FAILED = PaymentFailed(TO, INVOICE, None, 7, datetime(2026, 3, 8, tzinfo=UTC), action_required=False)


def test_the_contact_address_is_written_to_first() -> None:
    assert domain.open_message(RECEIPT) == domain.Opening(State.PENDING, "contact@example.com")


@pytest.mark.parametrize("contact", ["", "  ", "not an address", "a@b.example\r\nBcc: eve@evil.example"])
def test_without_a_usable_contact_address_the_customers_is_used(contact: str) -> None:
    assert domain.recipient_of(replace(TO, contact_email=contact)) == "customer@example.com"


def test_a_receipt_goes_by_what_was_paid_and_a_failure_by_what_is_due() -> None:
    free = replace(INVOICE, amount_paid=0)
    assert domain.open_message(replace(RECEIPT, invoice=free)).state is State.SKIPPED
    assert domain.open_message(replace(FAILED, invoice=free)).state is State.PENDING
    nothing_due = replace(INVOICE, amount_due=0)
    assert domain.open_message(replace(FAILED, invoice=nothing_due)).state is State.SKIPPED


def test_a_failure_of_an_invoice_already_paid_is_not_told_but_its_receipt_is() -> None:
    opening = domain.open_message(FAILED, overtaken=True)
    assert (opening.state, opening.reason) == (State.SKIPPED, "the invoice was paid before this could be sent")
    assert RECEIPT.topic == FAILED.topic
    assert RECEIPT.rank > FAILED.rank


@given(st.text(max_size=60) | st.emails())
def test_a_usable_address_holds_one_mailbox_and_nothing_a_header_gives_meaning_to(text: str) -> None:
    if domain.usable_address(text):
        local, _, host = text.rpartition("@")
        assert local
        assert host
        assert not set(text) & set(' \r\n\t,;:<>()[]"\\\x00\x7f\x85\u2028\u2029')
        assert text.isprintable()


@pytest.mark.parametrize("address", ["ada@example.com", "a.b+c@sub.example.co.jp", "用户@例え.jp", "o'n@x.org"])
def test_ordinary_addresses_are_usable(address: str) -> None:
    assert domain.usable_address(address)


@pytest.mark.parametrize("address", ["a@b@c", "@b", "a@", "a@.b", "a@b..c", "a@b.c\n", "a" * 65 + "@b.c", "a@b,c@d"])
def test_others_are_not(address: str) -> None:
    assert not domain.usable_address(address)


@given(st.integers(1, 10_000), st.timedeltas(timedelta(0), timedelta(days=30)))
def test_what_was_not_accepted_waits_longer_each_time_until_it_is_given_up(tries: int, age: timedelta) -> None:
    verdict = domain.not_accepted("451", tries=tries, age=age)
    if age >= timedelta(days=4):
        assert (verdict.state, verdict.retry_after) == (State.DEAD, None)
        return
    following = domain.not_accepted("451", tries=tries + 1, age=age)
    assert verdict.state is State.PENDING
    assert verdict.retry_after is not None
    assert following.retry_after is not None
    assert timedelta(seconds=1) <= verdict.retry_after <= following.retry_after <= timedelta(hours=1)
