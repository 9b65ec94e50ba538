"""Tiered prices and discounts as arithmetic: nothing is lost, nothing is counted twice."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.stripe_sandbox import tiers
from local.stripe_sandbox.discounts import off_each
from local.stripe_sandbox.periods import share

_UNITS = st.decimals(min_value=0, max_value=10**7, places=3)


def _price(mode: str, *rows: tuple[int | None, str, str]) -> dict[str, Any]:
    made = [{"up_to": up_to, "unit_amount_decimal": unit, "flat_amount_decimal": flat} for up_to, unit, flat in rows]
    return {"tiers": made, "tiers_mode": mode}


DOWNLOADS = _price("graduated", (1000, "0", "0"), (None, "0.1", "0"))


@pytest.mark.parametrize(
    ("used", "amount"), [(0, 0), (1000, 0), (1004, 0), (1005, 1), (1014, 1), (1015, 2), (1312, 31), (251_000, 25_000)]
)
def test_further_units_are_rounded_half_up_once(used: int, amount: int) -> None:
    assert tiers.amount(DOWNLOADS, Decimal(used)) == amount


def test_graduated_tiers_price_each_part_and_volume_tiers_all_units_by_the_last() -> None:
    rows = ((10, "100", "0"), (20, "50", "500"), (None, "10", "0"))
    assert tiers.amount(_price("graduated", *rows), Decimal(25)) == 1000 + 500 + 500 + 50
    assert tiers.amount(_price("volume", *rows), Decimal(25)) == 250
    assert tiers.amount(_price("volume", *rows), Decimal(20)) == 1500
    assert tiers.amount({"unit_amount_decimal": "2.5"}, Decimal(3)) == 8


@given(_UNITS, st.lists(st.integers(1, 10**6), max_size=4, unique=True))
def test_graduated_parts_are_the_units_used(used: Decimal, edges: list[int]) -> None:
    price = _price("graduated", *[(edge, "1", "0") for edge in sorted(edges)], (None, "1", "0"))
    found = tiers.parts(price, used)
    assert sum(part.quantity for part in found) == used
    assert all(part.quantity > 0 for part in found[1:])
    assert [part.tier for part in found] == list(range(1, len(found) + 1))


@given(_UNITS, _UNITS)
def test_more_use_never_costs_less(one: Decimal, other: Decimal) -> None:
    low, high = sorted((one, other))
    assert tiers.amount(DOWNLOADS, low) <= tiers.amount(DOWNLOADS, high)


@given(st.integers(1, 10**6), st.lists(st.integers(1, 10**6), min_size=1, max_size=6))
def test_a_sum_taken_off_is_spread_without_loss_and_never_beyond_a_line(sum_off: int, amounts: list[int]) -> None:
    off = off_each({"percent_off": None, "amount_off": sum_off}, amounts)
    assert sum(off) == min(sum_off, sum(amounts))
    assert all(0 <= taken <= amount for taken, amount in zip(off, amounts, strict=True))


@given(st.integers(1, 1000), st.lists(st.integers(1, 10**6), min_size=1, max_size=6))
def test_a_percentage_is_within_half_a_unit_of_exact(tenths: int, amounts: list[int]) -> None:
    off = off_each({"percent_off": tenths / 10, "amount_off": None}, amounts)
    exact = [Decimal(amount) * tenths / 1000 for amount in amounts]
    assert off == [int(value.quantize(Decimal(1), ROUND_HALF_UP)) for value in exact]


@given(st.integers(0, 10**6), st.integers(1, 366 * 86_400), st.integers(-10, 367 * 86_400))
def test_a_share_of_a_period_is_between_nothing_and_all(amount: int, length: int, at: int) -> None:
    found = share(amount, {"current_period_start": 0, "current_period_end": length}, at)
    assert 0 <= found <= amount
    if at <= 0:
        assert found == amount
    if at >= length:
        assert found == 0
