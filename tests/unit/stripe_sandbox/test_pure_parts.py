"""Cards, amounts, papers, differences, signatures, pauses."""

from __future__ import annotations

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from local.stripe_sandbox import pdf
from local.stripe_sandbox.cards import CARDS, named, of_number, passes_luhn
from local.stripe_sandbox.deliverer import RetryPolicy, signature
from local.stripe_sandbox.errors import ApiError
from local.stripe_sandbox.events import difference
from local.stripe_sandbox.faults import Faults
from local.stripe_sandbox.money import shown

_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text("abc", max_size=2), inner),
    max_leaves=6,
)


def test_every_test_card_is_a_possible_number() -> None:
    assert all(passes_luhn(number) for number in CARDS)


@given(st.sampled_from(sorted(CARDS)), st.integers(0, 14), st.integers(1, 9))
def test_one_wrong_digit_is_always_noticed(number: str, place: int, shift: int) -> None:
    place %= len(number)
    wrong = number[:place] + str((int(number[place]) + shift) % 10) + number[place + 1 :]
    with pytest.raises(ApiError) as caught:
        of_number(wrong)
    assert caught.value.code == "incorrect_number"


@pytest.mark.parametrize(
    ("name", "last4", "code"),
    [
        ("pm_card_visa", "4242", None),
        ("tok_visa", "4242", None),
        ("pm_card_mastercard", "4444", None),
        ("tok_chargeDeclined", "0002", "card_declined"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "9995", "card_declined"),
        ("pm_card_chargeDeclinedExpiredCard", "0069", "expired_card"),
        ("pm_card_chargeCustomerFail", "0341", "card_declined"),
    ],
)
def test_the_documented_names_stand_for_their_cards(name: str, last4: str, code: str | None) -> None:
    card = named(name)
    assert card is not None
    assert (card.last4, card.code) == (last4, code)


def test_names_that_stand_for_nothing_stand_for_nothing() -> None:
    assert named("pm_card_gold") is None
    assert named("pm_1234") is None


@pytest.mark.parametrize(
    ("amount", "currency", "words"),
    [
        (123450, "usd", "$1,234.50"),
        (500, "jpy", "¥500"),
        (-300, "eur", "-€3.00"),
        (1200, "chf", "12.00 CHF"),
        (5, "usd", "$0.05"),
    ],
)
def test_amounts_are_shown_in_their_currency(amount: int, currency: str, words: str) -> None:
    assert shown(amount, currency) == words


def test_a_difference_names_earlier_values_down_to_what_changed() -> None:
    before = {"status": "active", "details": {"a": 1, "b": 2}, "_own": 1}
    after = {"status": "past_due", "details": {"a": 1, "b": 3}, "_own": 2}
    assert difference(before, after) == {"status": "active", "details": {"b": 2}}


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), _JSON))
def test_nothing_differs_from_itself(value: dict[str, object]) -> None:
    assert difference(value, dict(value)) == {}


@given(st.binary(max_size=200), st.integers(0, 2**33))
def test_a_signature_is_what_the_official_library_expects(payload: bytes, at: int) -> None:
    header = signature("whsec_test", payload, at)
    text = payload.decode("latin-1").encode().decode()
    header = signature("whsec_test", text.encode(), at)
    assert stripe.WebhookSignature.verify_header(text, header, "whsec_test")


def test_pauses_double_up_to_the_longest() -> None:
    policy = RetryPolicy(base=1, longest=30)
    assert [policy.pause(n) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


@given(st.text(max_size=60))
def test_a_paper_of_any_text_is_a_sound_pdf(text: str) -> None:
    paper = pdf.document([pdf.Text(50, 50, text), pdf.Text(545, 50, text, right=True)], [60], text)
    start = int(paper.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
    lines = paper[start:].split(b"\n")
    count = int(lines[1].split()[1])
    for number in range(1, count):
        offset = int(lines[2 + number].split()[0])
        assert paper[offset:].startswith(b"%d 0 obj\n" % number)


def test_a_wrong_knob_changes_none() -> None:
    faults = Faults()
    with pytest.raises(ValueError, match="latency_ms"):
        faults.change({"hang_next": 3, "latency_ms": "soon"})
    assert faults == Faults()
