"""Text from elsewhere, made fit for a mail: one line, no tricks, links that are links. Pure."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from urllib.parse import urlsplit

from services.notify.domain import usable_address

WIDTH = 76  # of the plain text: RFC 5322 §2.1.1 asks for at most 78

# Characters that turn the text around them (Unicode UAX 9): a name made of them could rewrite our sentences.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LABELLED = re.compile(r"[^\s:][^:]{0,24}:\s{2,}")
_WEB = re.compile(r"https?://")


def line(text: str, limit: int) -> str:
    """One line of at most `limit` characters: control, separator and direction-turning characters become spaces."""
    kept = (" " if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} or c in _TURNING else c for c in text)
    joined = " ".join("".join(kept).split())
    return joined if len(joined) <= limit else joined[: limit - 1].rstrip() + "…"


def name(text: str, limit: int) -> str:
    """A name that somebody typed, as one line that no mail program turns into a link: whoever signs up with another's
    address must not make us send that person their link. A word joiner, which nobody sees, stands after each point.
    """
    return re.sub(r"(?<=\S)([.:/@])(?=\S)", "\\1\u2060", line(text, limit))


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


def mail_link(contact: str) -> str:
    """The address in `mailto:…`, or an empty string when it is none or not plain ASCII."""
    address = contact.removeprefix("mailto:").split("?", 1)[0]
    return address if usable_address(address) and address.isascii() else ""


def readable_on(color: str) -> str:
    """Black or white, whichever reads better on `#rrggbb` (WCAG 2 relative luminance)."""
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#ffffff" if 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 else "#000000"


def wrapped(text: str) -> str:
    """Plain text in lines of at most 76 characters; a line with a web address is left as it is. A line that begins
    with a label (`Account:   Ada`) goes on below its value.
    """
    lines: list[str] = []
    for each in text.splitlines():
        if len(each) <= WIDTH or _WEB.search(each):
            lines.append(each.rstrip())
            continue
        label = _LABELLED.match(each)
        indent = " " * label.end() if label else ""
        # Without break_on_hyphens: `past-due` is one word. A single word of 100 letters has to break somewhere.
        lines += textwrap.wrap(each, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"
