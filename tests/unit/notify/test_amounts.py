"""Amounts as people read them."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.money import THREE_DECIMAL, ZERO_DECIMAL, decimals, format_money


@pytest.mark.parametrize(
    ("amount", "currency", "locale", "text"),
    [
        (2900, "usd", "en_US", "$29.00"),
        (123456789, "USD", "en_US", "$1,234,567.89"),
        (2900, "jpy", "en_US", "¥2,900"),
        (2900, "jpy", "ja_JP", "￥2,900"),
        (10500, "bhd", "en_US", "BHD\u00a010.500"),
        (500, "chf", "en_US", "CHF\u00a05.00"),
        (500, "cad", "en_US", "CA$5.00"),
        (123456, "eur", "de_DE", "1.234,56\u00a0€"),
        (10500, "kwd", "de_DE", "10,500\u00a0KWD"),
        (12345678, "inr", "en_IN", "₹1,23,456.78"),
        (5000, "xaf", "fr", "5\u202f000\u00a0FCFA"),
        (-5, "usd", "en_US", "-$0.05"),
        (0, "usd", "en_US", "$0.00"),
    ],
)
def test_amounts_read_as_they_are_written_there(amount: int, currency: str, locale: str, text: str) -> None:
    assert format_money(amount, currency, locale) == text


@given(
    st.integers(0, 2**62),
    st.sampled_from(["usd", "eur", *sorted(ZERO_DECIMAL), *sorted(THREE_DECIMAL)]),
    st.sampled_from(["en_US", "en_GB", "en_IN", "ja_JP"]),
)
def test_no_minor_unit_is_lost_or_added_in_writing(amount: int, currency: str, locale: str) -> None:
    number = re.sub(r"[^\d.]", "", format_money(amount, currency, locale).replace("\u00a0", " ").split(" ")[-1])
    assert Decimal(number).scaleb(decimals(currency)) == amount
    assert len(number.partition(".")[2]) == decimals(currency)
