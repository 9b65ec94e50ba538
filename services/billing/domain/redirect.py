"""Where Stripe may send a person back to: only origins that the catalog allows, in no disguise (DESIGN §12)."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from services.billing.errors import RedirectNotAllowed

_PLAIN = re.compile(r"[\x21-\x5b\x5d-\x7e]+")  # printable ASCII without space and backslash
_MAX = 2048


def origin(url: str) -> str:
    """`https://host[:port]`, lower case. Raises ValueError when the address has none."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise ValueError(url)
    port = f":{parts.port}" if parts.port and parts.port != {"http": 80, "https": 443}[parts.scheme] else ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"


def check_redirect(url: str, field: str, allowed: Collection[str]) -> str:
    """Returns the address when its origin is one of `allowed`; raises RedirectNotAllowed naming the field."""
    problem = RedirectNotAllowed("An absolute address on an allowed origin is expected.", field=field)
    if len(url) > _MAX or not _PLAIN.fullmatch(url):
        raise problem
    try:
        found = origin(url)
    except ValueError:
        raise problem from None
    # The text itself must begin with the origin: then no parser reads another host out of it.
    rest = url[len(found) :]
    if found not in allowed or not url.lower().startswith(found) or rest[:1] not in {"", "/", "?", "#"}:
        raise problem
    return url
