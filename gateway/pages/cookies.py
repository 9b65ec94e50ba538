"""The cookies of the pages: a session, a mark of the browser, and where to go after signing in.

Over https their names begin with `__Host-`: the browser then takes them from this host only, for all of it, and sends
them over https only (RFC 6265bis, section 4.1.3.2). In local mode, over http, they have plain names.
"""

from __future__ import annotations

import re
import secrets
from datetime import timedelta

from fastapi import Request, Response

SESSION, BROWSER, NEXT = "session", "browser", "next"
_BROWSER = re.compile(r"[A-Za-z0-9_-]{16,128}")
_SESSION = re.compile(r"ses_[A-Za-z0-9_]{16,100}")
# Pages of ours only, and no others: whoever could name any address could send people anywhere.
_PATH = re.compile(r"/dash(?:/[a-z0-9-]{1,100}/billing|/device(?:\?code=[A-Za-z0-9-]{1,16})?)?")
BROWSER_LIFE = timedelta(hours=1)


def _name(request: Request, kind: str) -> str:
    return f"__Host-tollway-{kind}" if _secure(request) else f"tollway-{kind}"


def _secure(request: Request) -> bool:
    return str(request.app.state.public_url).startswith("https://")


def _get(request: Request, kind: str, shape: re.Pattern[str]) -> str:
    found = request.cookies.get(_name(request, kind), "")
    return found if shape.fullmatch(found) else ""


def session(request: Request) -> str:
    """The session's token; empty without one."""
    return _get(request, SESSION, _SESSION)


def browser(request: Request) -> str:
    """What only this browser knows; empty without one."""
    return _get(request, BROWSER, _BROWSER)


def next_path(request: Request) -> str:
    """Where the person wanted to go; empty if nowhere."""
    return _get(request, NEXT, _PATH)


def new_browser() -> str:
    return secrets.token_urlsafe(32)


def is_page(path: str) -> bool:
    return _PATH.fullmatch(path) is not None


def put(request: Request, response: Response, kind: str, value: str, life: timedelta) -> None:
    response.set_cookie(
        _name(request, kind),
        value,
        max_age=int(life.total_seconds()),
        path="/",
        secure=_secure(request),
        httponly=True,
        samesite="lax",
    )


def drop(request: Request, response: Response, *kinds: str) -> None:
    for kind in kinds:
        response.delete_cookie(_name(request, kind), path="/", secure=_secure(request), httponly=True, samesite="lax")
