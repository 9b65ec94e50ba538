"""What people send with forms: bounded, each field once, and from our own page in the same browser.

Against forged requests: a token that follows from a cookie which other sites cannot read, and the browser's own word
on where the form was (Origin, Sec-Fetch-Site).
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request

from gateway import body
from gateway.problems import Problem

MAX_BYTES = 16 * 1024
_MAX_FIELDS = 30
TOKEN_FIELD = "form_token"  # noqa: S105 (the name of a field)


def token(secret: str) -> str:
    """The token of forms for the holder of a cookie's value."""
    return hmac.new(secret.encode(), b"tollway form", hashlib.sha256).hexdigest()


async def read(request: Request, secret: str) -> Form:
    """The form. Raises form_foreign when another site, or an old page, may have sent it."""
    _from_here(request)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise Problem("form_malformed", status=415)
    raw = await body.read(request, MAX_BYTES)
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise Problem("form_malformed") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Problem("form_malformed")
    sent = fields.pop(TOKEN_FIELD, "")
    if not secret or not hmac.compare_digest(sent.encode(), token(secret).encode()):
        raise Problem("form_foreign")
    return Form(fields)


def _from_here(request: Request) -> None:
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise Problem("form_foreign")
    origin = request.headers.get("origin")
    if origin is None:
        return  # an old browser: the token decides
    host = urlsplit(origin).netloc
    if not host or host not in {urlsplit(request.app.state.public_url).netloc, request.headers.get("host", "")}:
        raise Problem("form_foreign")


class Form:
    """A form's fields, as text without space around it."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    def text(self, name: str, most: int, *, least: int = 0) -> str:
        """Raises validation_failed naming the field."""
        value = self._fields.get(name, "").strip()
        if not least <= len(value) <= most:
            said = "is required" if least and not value else f"may have {most} characters"
            raise _refused(name, said)
        if any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in value):
            raise _refused(name, "may have no control characters or line breaks")
        return value

    def number(self, name: str, most: int) -> int | None:
        """A whole number from 0, written with or without separators; None when the field is empty."""
        value = self.text(name, 40)
        for mark in (",", " ", "_", "\u00a0", "\u202f"):
            value = value.replace(mark, "")
        if not value:
            return None
        if not (value.isascii() and value.isdigit() and len(value) <= 20 and int(value) <= most):
            raise _refused(name, f"takes a whole number from 0 to {most:,}")
        return int(value)

    def ticked(self, name: str) -> bool:
        return name in self._fields


def _refused(name: str, said: str) -> Problem:
    label = name.replace("_", " ").capitalize()
    return Problem("validation_failed", f"{label} {said}.", fields=((name, said),))
