"""A mail's bytes as Mailpit describes them. Mails come malformed too: what cannot be read is shown empty."""

from __future__ import annotations

import email
import hashlib
import re
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage, MIMEPart
from email.utils import getaddresses, parsedate_to_datetime
from typing import Any

from local.mailbox.store import Mail

_SNIPPET = 250


def parse(mail: Mail) -> EmailMessage:
    return email.message_from_bytes(mail.raw, policy=policy.default)


def header(message: MIMEPart, name: str) -> str:
    """A header's text; empty if it is missing or cannot be read."""
    try:
        return str(message.get(name, "")).strip()
    except (ValueError, IndexError, AttributeError):  # the standard library's parser on broken input
        return ""


def headers(message: EmailMessage) -> dict[str, list[str]]:
    """Every header with all its values."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(message.keys()):
        try:
            found[name] = [str(value) for value in message.get_all(name, [])]
        except (ValueError, IndexError, AttributeError):
            found[name] = [""]
    return found


def text(message: EmailMessage) -> str:
    return _body(message, "plain")


def html(message: EmailMessage) -> str:
    return _body(message, "html")


def attachments(message: EmailMessage) -> list[MIMEPart]:
    try:
        return list(message.iter_attachments())
    except (AttributeError, KeyError, TypeError):  # a multipart type whose body is not one
        return []


def content(part: MIMEPart) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def summary(mail: Mail) -> dict[str, Any]:
    """An element of `messages` in Mailpit's lists."""
    message = parse(mail)
    return {
        "ID": mail.id,
        **_envelope(mail, message),
        "Read": mail.read,
        "Created": _rfc3339(mail.caught_at),
        "Tags": [],
        "Username": "",
        "Size": len(mail.raw),
        "Attachments": len(attachments(message)),
        "Snippet": snippet(message),
    }


def detail(mail: Mail) -> dict[str, Any]:
    """The answer of Mailpit's `GET /api/v1/message/{ID}`."""
    message = parse(mail)
    return {
        "ID": mail.id,
        **_envelope(mail, message),
        "ReturnPath": mail.sender,
        "Date": _rfc3339(_sent_at(message) or mail.caught_at),
        "ListUnsubscribe": {"Header": header(message, "List-Unsubscribe"), "Links": [], "Errors": "", "HeaderPost": ""},
        "Tags": [],
        "Username": "",
        "Text": text(message),
        "HTML": html(message),
        "Size": len(mail.raw),
        "Inline": [],
        "Attachments": [_attachment(number, part) for number, part in enumerate(attachments(message), start=1)],
    }


def snippet(message: EmailMessage) -> str:
    plain = text(message) or re.sub(r"<style.*?</style>|<[^>]+>", " ", html(message), flags=re.DOTALL)
    return " ".join(plain.split())[:_SNIPPET]


def matches(mail: Mail, query: str) -> bool:
    """Whether a mail fits a search as Mailpit writes them: every word has to; `-word` must not; quotes keep words
    together; `from:`, `to:`, `subject:`, `message-id:` look in one place; `is:read` and `is:unread` at the state.
    """
    message = parse(mail)
    places = {
        "from": header(message, "From") + " " + mail.sender,
        "to": header(message, "To") + " " + " ".join(mail.recipients),
        "subject": header(message, "Subject"),
        "message-id": header(message, "Message-ID"),
    }
    everywhere = " ".join((*places.values(), text(message), html(message))).lower()
    for minus, place, quoted, word in re.findall(r'(-?)(?:([a-z-]+):)?(?:"([^"]*)"|(\S+))', query, re.IGNORECASE):
        wanted, where = (quoted or word).lower(), place.lower()
        if where == "is":
            fits = mail.read == (wanted == "read")
        elif where in places:
            fits = wanted in places[where].lower()
        else:
            fits = (f"{where}:{wanted}" if where else wanted) in everywhere
        if fits == bool(minus):
            return False
    return True


def _envelope(mail: Mail, message: EmailMessage) -> dict[str, Any]:
    to, cc = _addresses(message, "To"), _addresses(message, "Cc")
    visible = {one["Address"].lower() for one in (*to, *cc)}
    senders = _addresses(message, "From") or [{"Name": "", "Address": mail.sender}]
    return {
        "MessageID": header(message, "Message-ID").strip("<>"),
        "From": senders[0],
        "To": to,
        "Cc": cc,
        "Bcc": [{"Name": "", "Address": one} for one in mail.recipients if one.lower() not in visible],
        "ReplyTo": _addresses(message, "Reply-To"),
        "Subject": header(message, "Subject"),
    }


def _addresses(message: EmailMessage, name: str) -> list[dict[str, str]]:
    pairs = getaddresses([header(message, name)])
    return [{"Name": display, "Address": address} for display, address in pairs if address]


def _body(message: EmailMessage, kind: str) -> str:
    try:
        part = message.get_body((kind,))
        return "" if part is None else str(part.get_content())
    except (LookupError, ValueError, AttributeError, TypeError):  # unknown charset, broken encoding or structure
        return content(part).decode(errors="replace") if part is not None else ""


def _attachment(number: int, part: MIMEPart) -> dict[str, Any]:
    data = content(part)
    return {
        "PartID": str(number),
        "FileName": part.get_filename() or "",
        "ContentType": part.get_content_type(),
        "ContentID": header(part, "Content-ID").strip("<>"),
        "Size": len(data),
        "Checksums": {"SHA256": hashlib.sha256(data).hexdigest()},
    }


def _sent_at(message: EmailMessage) -> datetime | None:
    try:
        moment = parsedate_to_datetime(header(message, "Date"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
