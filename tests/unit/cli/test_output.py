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


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=50), max_size=8))
def test_facts_that_do_not_fit_beside_each_other_begin_a_line_and_none_is_cut(facts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        lines: list[str] = []
        patched.setattr(output, "out", lines.append)
        patched.setattr(output, "columns", lambda: 60)
        output.wrapped(facts)
    assert [word for line in lines for word in line.split("  ") if word] == facts
    assert all(len(line) <= 60 for line in lines)


def test_a_table_that_is_too_wide_for_a_terminal_is_paragraphs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(output, "columns", lambda: 30)
    output.table(("", "SLUG", "NAME", "ROLE"), [("*", "adas-relay", "Ada's Relay", "owner"), ("", "b", "-", "")])
    assert capsys.readouterr().out == "* adas-relay\n  name Ada's Relay  role owner\nb\n"
