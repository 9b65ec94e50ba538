"""Problem documents (RFC 9457): the one form of every refusal.

`code` is what programs act on: the snake_case of the gRPC ErrorInfo reason, or the catalog's own word for a limit.
`type` is `{public_url}/problems#{code}`, a page that explains it, except for refusals by a limit, which use the
types that draft-ietf-httpapi-ratelimit-headers registers with IANA.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from gateway import facts
from gateway.problem_types import KNOWN
from gateway.validation import detail_of, fields_of
from services.kit import errors

MEDIA_TYPE = "application/problem+json"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
ENVELOPED = "/admin/"  # answers there are {data, meta}; what is no answer has the meta, too
REFUSALS = frozenset({402, 403, 429, 503})  # the statuses that a catalog chooses from for its limits
RETRY_AFTER_S = 1  # of a 503 or 504 that names no time

_STATUS = {
    "INVALID_ARGUMENT": 422,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# Reasons whose status differs from their gRPC code's.
_STATUS_OF_REASON = {
    "IDEMPOTENCY_KEY_REUSED": 422,
    "SIGNATURE_INVALID": 400,
    "LIVEMODE_MISMATCH": 400,
    "EVENT_MALFORMED": 400,
    "PAYMENT_DECLINED": 402,
    "MESSAGE_TOO_LARGE": 413,
}
# The gateway's own credentials were refused: its configuration is wrong, not the caller's request.
_OURS = frozenset({"RPC_TOKEN_REQUIRED", "UNAUTHENTICATED"})
_CHALLENGE = 'Bearer realm="tollway"'
# What the contract calls the field, and what the caller of REST calls it.
_FIELDS = {"request_id": "Idempotency-Key", "lease_id": "requestId"}
# ErrorInfo metadata that is meant for callers; the rest stays inside.
_SHOWN_METADATA = ("contact",)
_CATALOGS = frozenset(map(str, REFUSALS))
_CATALOG_LINKS = {"billing_url": "checkoutUrl", "support_contact": "supportContact"}


class Problem(Exception):
    """A refusal by the gateway itself. `fields` are (field, detail) pairs; `extra` become members of the document."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        status: int | None = None,
        title: str = "",
        type_uri: str = "",
        explained_as: str = "",
        fields: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(code)
        known = KNOWN.get(code)
        self.code = code
        self.status = status or (known.status if known else 500)
        self.title = title or (known.title if known else HTTPStatus(self.status).phrase)
        self.detail = detail or (known.detail if known else "")
        self.type_uri = type_uri
        self.explained_as = explained_as or code  # its entry on the page of problems
        self.fields = fields
        self.headers = dict(headers or {})
        self.extra = extra

    def document(self, public_url: str, instance: str) -> dict[str, Any]:
        document: dict[str, Any] = {
            "type": self.type_uri or f"{public_url}/problems#{self.explained_as}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
        }
        if self.fields:
            document["field"] = self.fields[0][0]
            document["errors"] = [{"field": field, "detail": detail} for field, detail in self.fields]
        return document | self.extra


def from_error(error: errors.TollwayError) -> Problem:
    """The problem that tells what a service refused. Text that no service of ours wrote is never passed on."""
    reason = error.error_reason
    status = _STATUS_OF_REASON.get(reason) or _STATUS.get(error.code, 500)
    if status == 500 or reason in _OURS:
        return Problem("internal")
    # Without an ErrorInfo the status comes from the gRPC library, and the text is not about this request.
    foreign = status in {429, 503, 504} and reason == type(error).reason
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = seconds(error.retry_after)
    elif status in {503, 504}:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if status == 401:
        headers["WWW-Authenticate"] = f'{_CHALLENGE}, error="invalid_token"'
    field = _FIELDS.get(error.field, error.field)
    if error.metadata.get("http_status") in _CATALOGS:
        return _from_catalog(error)
    return Problem(
        reason.lower(),
        "" if foreign else error.message,
        status=status,
        fields=((field, error.message),) if field else (),
        headers=headers,
        **{key: error.metadata[key] for key in _SHOWN_METADATA if error.metadata.get(key)},
    )


def _from_catalog(error: errors.TollwayError) -> Problem:
    """A refusal in the catalog's own words, with its status: the plan does not include what was asked for."""
    told, reason = error.metadata, error.error_reason.lower()
    members: dict[str, Any] = {name: int(told[name]) for name in ("used", "limit") if told.get(name, "").isdigit()}
    members |= {shown: told[name] for name, shown in _CATALOG_LINKS.items() if told.get(name)}
    status = int(told["http_status"])
    title = KNOWN["plan_refused"].title
    return Problem(
        reason, error.message, status=status, title=title, explained_as="plan_refused", reason=reason, **members
    )


def seconds(delay: timedelta) -> str:
    """Whole seconds, rounded up and at least 1: a caller that waits them is not refused for the same reason."""
    return str(max(1, math.ceil(delay.total_seconds())))


def unauthenticated(code: str = "unauthenticated", detail: str = "") -> Problem:
    """401. Without credentials at all the challenge carries no error (RFC 6750, section 3.1)."""
    challenge = _CHALLENGE if code == "unauthenticated" else f'{_CHALLENGE}, error="invalid_token"'
    return Problem(code, detail, status=401, headers={"WWW-Authenticate": challenge})


def insufficient_scope(scope: str) -> Problem:
    challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'
    return Problem(
        "insufficient_scope",
        f"This needs the scope `{scope}`, which these credentials do not have.",
        headers={"WWW-Authenticate": challenge},
        scope=scope,
    )


def _from_http(error: HTTPException, request: Request) -> Problem:
    if error.status_code == 404:
        return Problem("route_not_found")
    if error.status_code == 405:
        path = getattr(request.scope.get("route"), "path", "")
        return Problem("method_not_allowed", headers={"Allow": ", ".join(request.app.state.methods.get(path, ()))})
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return Problem(code, status=error.status_code, headers=error.headers)


def render(problem: Problem, scope: Scope, public_url: str) -> Response:
    """`scope` is the request's; the boundary has put its id there."""
    document = problem.document(public_url, quote(scope["path"][:256], safe="/:@!$&'()*+,;="))
    document["request_id"] = facts.of(scope).request_id
    if scope["path"].startswith(ENVELOPED):
        document["meta"] = {"request_id": document["request_id"]}
    # ASCII escapes: a field name that is no valid text cannot break the answer that refuses it.
    return Response(
        json.dumps(document, separators=(",", ":")),
        problem.status,
        {"Cache-Control": "no-store", **problem.headers},
        MEDIA_TYPE,
    )


def as_problem(request: Request, error: Exception) -> Problem:
    """What an exception that a route raised says to the caller."""
    if isinstance(error, errors.TollwayError):
        return from_error(error)
    if isinstance(error, HTTPException):
        return _from_http(error, request)
    if isinstance(error, RequestValidationError):  # the query; bodies are read by `body`
        fields = fields_of(error.errors(), skip=1)
        return Problem("validation_failed", detail_of(fields), fields=fields)
    return error if isinstance(error, Problem) else Problem("internal")


async def answer(request: Request, error: Exception) -> Response:
    """The exception handler of the application."""
    problem = as_problem(request, error)
    if problem.status >= 500:
        facts.of(request.scope).error = repr(error)
    return render(problem, request.scope, request.app.state.public_url)
