"""Writes the mails: HTML with its styles inlined and the same in plain text, in the brand's name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

import css_inline
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from services.notify import facts
from services.notify.domain import Brand, Notice, usable_address
from services.notify.facts import Facts, Style
from services.notify.text import line, wrapped

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class MailWriter:
    """`sender` is the address mails come from unless the brand has its own; `locale` writes amounts and dates.

    See `ports.Writer`.
    """

    sender: str
    locale: str = "en_US"

    def __call__(self, notice: Notice, *, recipient: str, message_id: str) -> EmailMessage:
        sender = sender_of(notice.to.brand, self.sender)
        shown = facts.of(notice, Style(self.locale))
        return compose(notice.kind, shown, sender=sender, recipient=recipient, message_id=message_id)


def sender_of(brand: Brand, usual: str) -> str:
    """The address that mails of the brand come from: its own, else the installation's."""
    return brand.sender if usable_address(brand.sender) and brand.sender.isascii() else usual


def compose(kind: str, shown: Facts, *, sender: str, recipient: str, message_id: str) -> EmailMessage:
    """A mail from the templates `KIND.subject.txt`, `KIND.txt` and `KIND.html`, which extend `base.txt` and
    `base.html`. `shown` holds `facts.of_brand(…)` and whatever else they name.
    """
    mail = EmailMessage()
    mail["From"] = _address(shown["brand"], sender)
    mail["To"] = _address("", recipient)
    if (support := shown["support"]) and support["url"].startswith("mailto:"):
        mail["Reply-To"] = _address(shown["brand"], support["text"])
    mail["Subject"] = line(_rendered(f"{kind}.subject.txt", shown), 200)
    mail["Date"] = format_datetime(datetime.now(UTC))
    mail["Message-ID"] = message_id
    # RFC 2919: for filters. The kind is ours, the domain the sender's; nothing in it was typed.
    mail["List-Id"] = f"<{kind.replace('_', '-')}.billing.{sender.rsplit('@', 1)[1]}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation notice should answer
    mail["X-Auto-Response-Suppress"] = "All"
    mail.set_content(wrapped(_rendered(f"{kind}.txt", shown)))
    mail.add_alternative(_INLINER.inline(_rendered(f"{kind}.html", shown)), subtype="html")
    return mail


def _address(display_name: str, address: str) -> Address:
    # In two parts: given whole, letters beyond ASCII are refused, which SMTPUTF8 allows.
    username, _, domain = address.rpartition("@")
    return Address(display_name, username, domain)


def _rendered(template: str, shown: Facts) -> str:
    return _ENVIRONMENT.get_template(template).render(shown)


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
