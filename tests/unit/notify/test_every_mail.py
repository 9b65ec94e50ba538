"""Every kind of mail as written, with ordinary facts and with hostile ones."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit.money import THREE_DECIMAL, ZERO_DECIMAL, decimals
from services.notify import samples, text
from services.notify.domain import Addressee, Brand, Invoice, Notice
from services.notify.email import MailWriter
from services.notify.preview import KINDS
from services.notify.preview import written as previewed
from tests.unit.notify.test_email import TRICKS, Links, body, written

NOTICES = samples.of()
LONG = "x" * 10_000
HOSTILE = [
    *TRICKS,
    "\r\nSubject: hello\r\n\r\n<p>",
    '<img src=x onerror="alert(1)">',
    "{{7*7}} {% raw %} ${7*7}",
    "\u2066\u202eevil\u2069",
    "a\x00b\x85c\u2028d\u2029e\x1b[31m",
    "=?utf-8?b?QmNjOiBldmU=?=",
    "http://evil.example/x www.evil.example evil.example",
    LONG,
    "\ud800",
    "",
]
typed = st.text(max_size=80) | st.sampled_from(HOSTILE)


def with_texts(notice: Notice, value: str) -> Notice:
    """The notice with every text that others give set to `value`; ids and addresses are not shown."""
    ids = {"refund_id", "subscription_id", "currency", "period"}

    def changed(thing: Any) -> Any:
        values: dict[str, Any] = {}
        for field in fields(thing):
            old = getattr(thing, field.name)
            if isinstance(old, (Addressee, Brand, Invoice)):
                values[field.name] = changed(old)
            elif field.name == "meters":
                values[field.name] = (value, value)
            elif isinstance(old, str) and field.name not in ids:
                values[field.name] = value
        return replace(thing, **values)

    done = changed(notice)
    assert isinstance(done, Notice)
    return done


@pytest.mark.parametrize("kind", NOTICES)
def test_each_says_who_it_is_from_what_it_is_about_and_one_thing_to_do(kind: str) -> None:
    mail = written(NOTICES[kind])
    html = body(mail, "html")
    assert mail["From"] == "Example <billing@example.com>"
    assert mail["Reply-To"] == "Example <support@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert re.fullmatch(r"<[a-z-]+\.billing\.example\.com>", mail["List-Id"])
    assert len(mail["Subject"]) < 78
    assert html.count('class="button"') == 1
    assert "Acme Rockets" in html
    assert "Acme Rockets" in body(mail, "plain")
    links = Links(html)
    assert not links.tags & {"script", "img", "link", "iframe", "form", "input"}
    assert "src" not in links.attributes  # nothing is fetched when it is opened
    assert all(href.startswith(("https://", "mailto:")) for href in links.hrefs)
    # Whatever HTML leads to, the text does.
    assert all(href.removeprefix("mailto:") in body(mail, "plain") for href in links.hrefs if "pdf" not in href)


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_reads_well_in_78_columns(kind: str) -> None:
    mail = previewed(kind, samples.BRAND)
    lines = body(mail, "plain").splitlines()
    assert all(len(line) <= 78 or line.startswith("https://") for line in lines)
    assert not [line for line in lines if "{" in line or "  \n" in line or "None" in line]
    assert "\n\n\n" not in "\n".join(lines)
    assert " ." not in "\n".join(lines)


@pytest.mark.parametrize("kind", NOTICES)
def test_a_name_of_ten_thousand_letters_breaks_neither_text_nor_headers(kind: str) -> None:
    mail = written(with_texts(NOTICES[kind], LONG))
    assert max(map(len, body(mail, "plain").splitlines())) <= 78
    assert len(mail.as_bytes()) < 40_000
    assert len(mail["Subject"]) <= 200


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(sorted(NOTICES)), value=typed)
def test_whatever_others_give_changes_neither_headers_nor_structure(kind: str, value: str) -> None:
    usual, mail = written(NOTICES[kind]), written(with_texts(NOTICES[kind], value))
    assert set(mail.keys()) <= set(usual.keys())
    assert len(mail.keys()) == len(set(mail.keys()))
    assert [a.addr_spec for a in mail["From"].addresses] in (["billing@example.com"], [value])
    assert [a.addr_spec for a in mail["To"].addresses] == ["ada@example.com"]
    assert not mail.defects
    links, usual_links = Links(body(mail, "html")), Links(body(usual, "html"))
    assert links.tags <= usual_links.tags
    assert links.attributes <= usual_links.attributes
    assert all(href.startswith(("https://", "http://", "mailto:")) for href in links.hrefs)
    shown = body(mail, "html") + body(mail, "plain")
    assert not set(shown) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\x00\x1b")
    assert "49" not in body(mail, "plain").replace(value, "")


@pytest.mark.parametrize("kind", NOTICES)
def test_an_accounts_name_becomes_nobodys_link(kind: str) -> None:
    """Who signs up with another's address cannot make us send that person a link of theirs."""
    notice = NOTICES[kind]
    to = replace(notice.to, account_name="Win at http://evil.example/x or www.evil.example or eve@evil.example")
    mail = written(replace(notice, to=to))
    for form in ("html", "plain"):
        shown = body(mail, form)
        assert "evil" in shown
        assert not re.search(r"https?://[^\s]*evil|www\.evil|evil\.example|eve@evil", shown)


@given(
    st.integers(1, 10**12),
    st.sampled_from(["usd", "eur", "inr", *sorted(ZERO_DECIMAL), *sorted(THREE_DECIMAL)]),
    st.sampled_from(["en_US", "en_GB", "ja_JP"]),
)
@settings(max_examples=60, deadline=None)
def test_amounts_in_mails_lose_no_minor_unit(amount: int, currency: str, locale: str) -> None:
    refund = replace(NOTICES["refund"], amount=amount, currency=currency)  # type: ignore[call-arg]
    mail = written(refund, MailWriter("billing@example.com", locale))
    (shown,) = re.findall(r"^Amount refunded:\s+(.*?)\r?$", body(mail, "plain"), re.MULTILINE)
    digits = re.sub(r"[^\d.]", "", shown.replace("\u00a0", " ").split(" ")[-1])
    whole, _, rest = digits.partition(".")
    assert int(whole + rest) == amount
    assert len(rest) == decimals(currency)
    assert " ".join(shown.split()) in " ".join(mail["Subject"].split())


@given(st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1)), st.integers(-14, 14))  # noqa: DTZ001 - zone below
@settings(max_examples=30, deadline=None)
def test_dates_in_mails_are_utc_wherever_an_instant_was_told(moment: datetime, offset: int) -> None:
    instant = moment.replace(tzinfo=UTC)
    elsewhere = instant.astimezone(timezone(timedelta(hours=offset)))
    trial = replace(NOTICES["trial_ending"], end_time=elsewhere)  # type: ignore[call-arg]
    assert f"{instant:%B} {instant.day}, {instant.year}" in body(written(trial), "plain")


@pytest.mark.parametrize("kind", NOTICES)
def test_unknown_facts_leave_no_holes_in_the_words(kind: str) -> None:
    notice = NOTICES[kind]
    bare = with_texts(notice, "")
    mail = written(bare)
    shown = body(mail, "plain")
    assert "  " not in re.sub(r":\s{2,}", ": ", shown)
    assert " ." not in shown
    assert " ," not in shown
    assert mail["From"] == "Billing <billing@example.com>"


@given(st.text())
def test_wrapping_keeps_every_word(typed_text: str) -> None:
    plain = " ".join(typed_text.split())
    assert "".join(text.wrapped(plain).split()) == "".join(plain.split())
