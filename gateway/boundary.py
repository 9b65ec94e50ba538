"""The outermost layer: an id for each request, one log line, metrics, and an answer even when code fails.

Plain ASGI: it adds microseconds, and never reads a body.
"""

from __future__ import annotations

import re
import time
from collections.abc import MutableMapping
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.facts import begin, of
from gateway.pages import errors as page_errors
from gateway.problems import Problem, render
from services.kit import correlation, telemetry
from services.kit.ids import new_id

log = structlog.get_logger("gateway.access")
_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
GONE = 499  # as nginx writes it in logs; it is never sent
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds, by machines


def request_id(scope: Scope) -> str:
    """The caller's X-Request-Id if there is one sane one, else a new id."""
    found = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(found) == 1 and _SANE_ID.fullmatch(found[0]):
        return str(found[0], "ascii")
    return new_id("req")


class Boundary:
    def __init__(self, app: ASGIApp, public_url: str) -> None:
        self._app = app
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.perf_counter()
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # the answer to GET; the server, who keeps its scope, omits the body
        known = begin(scope, request_id(scope))
        ident = known.request_id
        correlation.request_id.set(ident)
        status = 0

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                headers += ((b"x-request-id", ident.encode()), (b"x-content-type-options", b"nosniff"))
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except ClientDisconnect:
            status = GONE  # in the middle of its body: nobody is there to be answered
        except Exception as error:
            log.exception("request.failed", method=method, route=_route(scope))
            known.error = type(error).__name__
            if status:  # part of an answer is out: cutting the connection is the only way to say so
                raise
            failed = Problem("internal")
            answer = page_errors.bare(failed, ident) if page_errors.of_page(scope["path"]) else None
            await (answer or render(failed, scope, self._public_url))(scope, receive, with_headers)
        finally:
            _record(scope, method, status, time.perf_counter() - began)


def _record(scope: Scope, method: str, status: int, seconds: float) -> None:
    route = _route(scope)
    telemetry.observe("tollway_http_seconds", seconds, method=_usual(method), route=route, status=str(status))
    facts: dict[str, Any] = {"method": method[:16], "route": route, "status": status, "ms": round(seconds * 1000, 2)}
    known = of(scope)
    if known.account_id:
        facts["account_id"] = known.account_id
    if route in _QUIET and status != 500:
        log.debug("request", **facts)
    elif status >= 500:
        log.error("request", **facts, error=known.error)
    else:
        log.info("request", **facts)


def _route(scope: MutableMapping[str, Any]) -> str:
    """The route's template: a path that a caller made up would be a label without end, or a secret in the log."""
    return getattr(scope.get("route"), "path", None) or "unmatched"


def _usual(method: str) -> str:
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"
