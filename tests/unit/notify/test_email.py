"""The mails as written: right facts, and nothing that a person typed can break out."""

from __future__ import annotations

import re
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.notify import text
from services.notify.domain import Brand, Notice
from services.notify.email import MailWriter
from tests.unit.notify.test_domain import FAILED, INVOICE, RECEIPT, TO

WRITE = MailWriter("billing@example.com")


def written(notice: Notice, write: MailWriter = WRITE, to: str = "ada@example.com") -> EmailMessage:
    """The mail as the other side reads it: through its bytes."""
    content = write(notice, recipient=to, message_id="<receipt.1@example.com>").as_bytes(policy=policy.SMTP)
    return message_from_bytes(content, policy=policy.default)


def body(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content())


class Links(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.hrefs: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.hrefs += [value or "" for name, value in attrs if name == "href"]


def test_a_receipt_shows_amount_paid_number_date_and_both_links() -> None:
    mail = written(RECEIPT)
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    for kind in ("plain", "html"):
        for fact in ("$29.00", "ABCD-0001", "March 1, 2026", INVOICE.hosted_url, INVOICE.pdf_url):
            assert fact in body(mail, kind)


def test_a_failure_explains_the_grace_period_with_its_end_and_links_to_pay() -> None:
    mail = written(FAILED)
    for kind in ("plain", "html"):
        for fact in ("$29.00", "7-day grace period", "March 8, 2026", INVOICE.hosted_url, TO.brand.billing_url):
            assert fact in body(mail, kind)


def test_without_grace_none_is_promised() -> None:
    mail = written(replace(FAILED, grace_days=0, grace_end_time=None))
    assert "grace" not in body(mail, "plain")
    assert "grace" not in body(mail, "html").split("<body", 1)[1].lower()


def test_a_confirmation_wanted_by_the_bank_is_not_called_a_failure() -> None:
    mail = written(replace(FAILED, action_required=True))
    assert mail["Subject"] == "Please confirm your Skytale payment of $29.00"
    assert "did not go through" not in body(mail, "plain") + body(mail, "html")


def test_amounts_and_dates_follow_the_currency_and_the_locale() -> None:
    yen = replace(RECEIPT, invoice=replace(INVOICE, amount_paid=2900, currency="jpy"))
    assert "¥2,900" in body(written(yen), "plain")
    german = written(replace(FAILED, invoice=replace(INVOICE, currency="eur")), MailWriter("b@example.com", "de_DE"))
    assert "29,00\xa0€" in body(german, "plain")
    assert "8. März 2026" in body(german, "plain")


def test_styles_are_inlined_and_phones_and_dark_mode_keep_their_rules() -> None:
    html = body(written(RECEIPT), "html")
    assert "prefers-color-scheme: dark" in html
    assert "max-width: 480px" in html
    assert re.search(r'<a class="button"[^>]*style="[^"]*background-color:\s*#4f46e5', html)
    links = Links(html)
    assert "script" not in links.tags
    assert "link" not in links.tags
    assert "src" not in links.attributes  # nothing is fetched when it is opened


def test_it_says_who_it_is_from_and_where_answers_go() -> None:
    mail = written(RECEIPT)
    assert mail["From"] == "Skytale <billing@example.com>"
    assert mail["Reply-To"] == "Skytale <help@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"] == "<receipt.1@example.com>"


def test_text_typed_as_markup_or_template_is_shown_as_typed() -> None:
    name = '<img src=x onerror="alert(1)"> {{7*7}} {% raw %}'
    html = body(written(replace(RECEIPT, to=replace(TO, account_name=name))), "html")
    assert "img" not in Links(html).tags
    assert "{{7*7}}" in html
    assert "&lt;img" in html


BAD_LINKS = [
    "javascript:alert(1)",
    "data:text/html,x",
    "//evil.example",
    "https://user@evil.example",
    "https:///x",
    "ftp://x.y",
]


@pytest.mark.parametrize("link", BAD_LINKS)
def test_only_plain_web_addresses_become_links(link: str) -> None:
    to = replace(TO, brand=replace(TO.brand, billing_url=link, support_contact=link))
    changed = replace(INVOICE, hosted_url=link, pdf_url=link)
    for notice in (replace(RECEIPT, invoice=changed, to=to), replace(FAILED, invoice=changed, to=to)):
        mail = written(notice)
        assert Links(body(mail, "html")).hrefs == []
        assert link not in body(mail, "plain")


TRICKS = ["a\r\nBcc: eve@evil.example", "\r\n\r\n<b>", "=?utf-8?q?x?=", "\u202egnp.exe"]
typed = st.text(max_size=60) | st.sampled_from(TRICKS)


@settings(max_examples=60, deadline=None)
@given(name=typed, brand=typed, number=typed, color=typed, support=typed)
def test_whatever_is_typed_changes_neither_headers_nor_structure(
    name: str, brand: str, number: str, color: str, support: str
) -> None:
    to = replace(TO, account_name=name, brand=Brand(brand, support, color, brand, brand))
    usual, mail = written(FAILED), written(replace(FAILED, invoice=replace(INVOICE, number=number), to=to))
    assert set(mail.keys()) | {"Reply-To"} == set(usual.keys())
    assert [a.addr_spec for a in mail["From"].addresses] == ["billing@example.com"]
    assert [a.addr_spec for a in mail["To"].addresses] == ["ada@example.com"]
    assert not mail.defects
    links, usual_links = Links(body(mail, "html")), Links(body(usual, "html"))
    assert links.tags <= usual_links.tags
    assert links.attributes <= usual_links.attributes
    assert all(href.startswith(("https://", "http://", "mailto:")) for href in links.hrefs)


@given(st.text())
def test_a_line_is_one_line(typed: str) -> None:
    assert len(text.line(typed, 20)) <= 20
    assert len(text.line(typed, 20).splitlines()) <= 1


@given(st.integers(0, 0xFFFFFF))
def test_the_buttons_text_can_be_read_on_any_colour(number: int) -> None:
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    color = f"#{number:06x}"
    lighter, darker = sorted((luminance(color), luminance(text.readable_on(color))), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG 2.2, 1.4.3


def test_an_international_address_can_be_written_to() -> None:
    mail = WRITE(RECEIPT, recipient="用户@例え.jp", message_id="<receipt.1@example.com>")
    assert "用户@例え.jp" in mail.as_bytes(policy=policy.SMTPUTF8).decode()
