"""Writes the mails: HTML with its styles inlined and the same in plain text, in the brand's name."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import css_inline
from babel.dates import format_date
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from services.kit.money import format_money
from services.notify.domain import Notice, PaymentFailed, Receipt, usable_address

TEMPLATES = Path(__file__).parent / "templates"
DEFAULT_COLOR = "#3b4a8c"

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
# Characters that turn the text around them (Unicode UAX 9): a name made of them could rewrite our sentences.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class MailWriter:
    """`sender` is the address mails come from; `locale` writes amounts and dates. See `ports.Writer`."""

    sender: str
    locale: str = "en_US"

    def __call__(self, notice: Notice, *, recipient: str, message_id: str) -> EmailMessage:
        facts = self._facts(notice)
        return compose(notice.kind, facts, sender=self.sender, recipient=recipient, message_id=message_id)

    def _facts(self, notice: Notice) -> dict[str, Any]:
        invoice, brand = notice.invoice, notice.invoice.brand
        color = plain_color(brand.color) or DEFAULT_COLOR
        facts: dict[str, Any] = {
            "brand": line(brand.name, 80) or "Billing",
            "color": color,
            "on_color": readable_on(color),
            "account": line(invoice.account_name, 120),
            "amount": format_money(notice.amount, invoice.currency, self.locale),
            "number": line(invoice.number, 60),
            "invoice_url": web_link(invoice.hosted_url),
            "pdf_url": web_link(invoice.pdf_url),
            "billing_url": web_link(brand.billing_url),
            "support": support_of(brand.support_contact),
        }
        if isinstance(notice, Receipt):
            return facts | {"paid_on": self._day(notice.paid_time)}
        return facts | self._failure(notice)

    def _failure(self, notice: PaymentFailed) -> dict[str, Any]:
        days = max(notice.grace_days, 0)
        return {
            "action_required": notice.action_required,
            "grace_days": days,
            "grace_end": self._day(notice.grace_end_time) if days and notice.grace_end_time else "",
            "next_try": self._day(notice.next_attempt_time) if notice.next_attempt_time else "",
        }

    def _day(self, time: datetime) -> str:
        return format_date(time.astimezone(UTC).date(), "long", self.locale)


def compose(kind: str, facts: dict[str, Any], *, sender: str, recipient: str, message_id: str) -> EmailMessage:
    """The mail of a kind: its three templates with `facts`, among them `brand` and `support`, and every header."""
    mail = EmailMessage()
    mail["From"] = _address(facts["brand"], sender)
    mail["To"] = _address("", recipient)
    if (support := facts["support"]) and support["url"].startswith("mailto:"):
        mail["Reply-To"] = _address(facts["brand"], support["text"])
    mail["Subject"] = line(_template(f"{kind}.subject.txt", facts), 200)
    mail["Date"] = format_datetime(datetime.now(UTC))
    mail["Message-ID"] = message_id
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation notice should answer
    mail["X-Auto-Response-Suppress"] = "All"
    mail.set_content(_template(f"{kind}.txt", facts))
    mail.add_alternative(_INLINER.inline(_template(f"{kind}.html", facts)), subtype="html")
    return mail


def plain_color(color: str) -> str:
    """`#rrggbb` as it is; anything else is no colour: empty."""
    return color if _COLOR.fullmatch(color) else ""


def line(text: str, limit: int) -> str:
    """One line of at most `limit` characters: control, separator and direction-turning characters become spaces."""
    kept = (" " if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} or c in _TURNING else c for c in text)
    joined = " ".join("".join(kept).split())
    return joined if len(joined) <= limit else joined[: limit - 1].rstrip() + "…"


def web_link(url: str) -> str:
    """The address if it is a plain http(s) one, else an empty string, for which the templates show no link."""
    if not url.isprintable() or " " in url:
        return ""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None
    except ValueError:
        return ""
    return url if usable else ""


def readable_on(color: str) -> str:
    """Black or white, whichever reads better on `#rrggbb` (WCAG 2 relative luminance)."""
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#ffffff" if 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 else "#000000"


def _address(name: str, address: str) -> Address:
    # In two parts: given whole, letters beyond ASCII are refused, which SMTPUTF8 allows.
    username, _, domain = address.rpartition("@")
    return Address(name, username, domain)


def _mail_address(contact: str) -> str:
    address = contact.removeprefix("mailto:").split("?", 1)[0]
    return address if usable_address(address) and address.isascii() else ""


def support_of(contact: str) -> dict[str, str] | None:
    """How a mail names whom to write to (`mailto:…`) or what to see (https); None for anything else."""
    if address := _mail_address(contact):
        return {"lead": "Write to", "url": f"mailto:{address}", "text": address}
    if url := web_link(contact):
        return {"lead": "See", "url": url, "text": url}
    return None


def _template(name: str, facts: dict[str, Any]) -> str:
    return _ENVIRONMENT.get_template(name).render(facts)


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=select_autoescape(("html",), default=False, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=False,
)
# Without keep_at_rules the media queries for phones and dark mode would vanish; nothing is ever fetched.
_INLINER = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)
