"""Amounts, shortened keys, and lines of text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.cli import account, events, output, usage


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (2900, "usd", "29.00 USD"),
        (5, "eur", "0.05 EUR"),
        (2900, "jpy", "2,900 JPY"),
        (10500, "bhd", "10.500 BHD"),
        (-2905, "usd", "-29.05 USD"),
        (123456789, "usd", "1,234,567.89 USD"),
    ],
)
def test_prices_have_their_currencys_digits(minor: int, currency: str, text: str) -> None:
    assert usage.amount(minor, currency) == text


@given(st.text())
def test_text_from_elsewhere_is_one_printable_line(text: str) -> None:
    assert output.plain(text).isprintable()


@given(st.text(alphabet="abcdefABCDEF0123456789", min_size=20, max_size=60))
def test_a_shortened_key_tells_four_characters_of_the_secret(secret: str) -> None:
    assert account.shortened(f"sk_live_{secret}") == f"sk_live_{secret[:4]}…"


@pytest.mark.parametrize("key", ["sk_live_short", "nothing", ""])
def test_what_is_no_key_is_not_shown_at_all(key: str) -> None:
    assert account.shortened(key) == "…"


def test_an_events_fields_are_flat_and_unambiguous() -> None:
    data = {"tier": "pro", "invoice": {"number": "A-1", "name": "Ada's shop", "empty": ""}, "list": [1, 2]}
    assert events._flat(data) == [
        ("tier", "pro"),
        ("invoice.number", "A-1"),
        ("invoice.name", '"Ada\'s shop"'),
        ("invoice.empty", '""'),
        ("list", "[2]"),
    ]


def test_an_event_that_is_one_thing_needs_no_prefix() -> None:
    assert events._flat({"entitlements": {"tier": "pro", "meters": [{}]}}) == [("tier", "pro"), ("meters", "[1]")]


def test_a_password_in_the_nats_address_is_not_repeated() -> None:
    assert events._without_password("nats://user:secret@host:4222") == "nats://host:4222"
