"""What the client of a protected route is told: HTTP status, fields and a problem document (RFC 9457).

The same documents as the gateway's for the same facts; a test holds them together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from services.kit.errors import TollwayError
from services.kit.http_fields import Window, rate_limit
from services.quota.domain import Decision, Kind, LimitState

MEDIA_TYPE = "application/problem+json"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"

_REFUSED = frozenset({402, 403, 429, 503})  # what a catalog may answer with
_CHALLENGE = 'Bearer realm="tollway"'
_STATUS = {
    "INVALID_ARGUMENT": 422,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    # The key was good: the account behind it is gone. 404 would speak of the upstream's resource.
    "NOT_FOUND": 403,
    "ALREADY_EXISTS": 422,  # an Idempotency-Key that comes back with another use
    "FAILED_PRECONDITION": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    # Envoy's caller cannot ask again for the same request, so that it took too long means: not now.
    "DEADLINE_EXCEEDED": 503,
}
TITLES = {
    "unauthenticated": "Not authenticated",
    "authorization_malformed": "Malformed Authorization",
    "api_key_malformed": "Malformed API key",
    "api_key_unknown": "Unknown API key",
    "api_key_revoked": "Revoked API key",
    "idempotency_key_invalid": "Invalid Idempotency-Key",
    "idempotency_key_reused": "Idempotency-Key reused",
    "account_not_found": "Account not found",
    "route_misconfigured": "Misconfigured route",
    "counter_full": "Counter full",
    "reversed": "Taken back",
    "queue_full": "Too busy",
    "store_unavailable": "Unavailable",
    "billing_unavailable": "Unavailable",
    "expired_in_queue": "No answer in time",
    "deadline_exceeded": "No answer in time",
    "internal": "Internal error",
}


@dataclass
class Answer:
    """A refusal, ready to be told. `members` are the document's, apart from those that name the request."""

    status: int
    members: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    def body(self, *, instance: str = "", request_id: str = "", without_status: bool = False) -> str:
        """The document. `instance` is the request's target; its query may hold secrets and is left out."""
        document = dict(self.members)
        if instance:
            document["instance"] = quote(instance.partition("?")[0][:256], safe="/:@!$&'()*+,;=%")
        if request_id:
            document["request_id"] = request_id
        if without_status:
            del document["status"]
        return json.dumps(document, separators=(",", ":"))


def refused(code: str, detail: str, *, status: int, public_url: str) -> Answer:
    """A refusal that no limit made."""
    title = TITLES.get(code) or HTTPStatus(status).phrase
    answer = Answer(status, _members(f"{public_url}/problems#{code}", title, status, detail, code))
    if status == 401:
        # Without credentials at all the challenge carries no error (RFC 6750, section 3.1).
        error = "" if code == "unauthenticated" else ', error="invalid_token"'
        answer.headers["WWW-Authenticate"] = _CHALLENGE + error
    return answer


def of_error(error: TollwayError, public_url: str) -> Answer:
    """What stopped the decision. Text that is not meant for the client is not told."""
    status = _STATUS.get(error.code, 500)
    if status == 500:
        return refused(
            "internal", "Something went wrong on our side; it is in the log.", status=500, public_url=public_url
        )
    answer = refused(error.error_reason.lower(), error.message, status=status, public_url=public_url)
    if error.retry_after is not None or status == 503:
        answer.headers["Retry-After"] = seconds(error.retry_after or timedelta(seconds=1))
    return answer


def of_decision(meter: str, decision: Decision, now: datetime) -> Answer:
    """What a limit's refusal says: the catalog's status and words, and the limit as it stands. `now` as decided on."""
    refusal = decision.refused
    assert refusal is not None  # noqa: S101 - asked for refusals only
    told = refusal.refusal
    status = told.http_status if told.http_status in _REFUSED else 429
    capacity = status == 503
    members = _members(
        REDUCED_CAPACITY if capacity else QUOTA_EXCEEDED,
        "Temporarily reduced capacity" if capacity else "Quota exceeded",
        status,
        told.detail,
        told.reason,
    )
    binding = next((state for state in decision.limits if state.name == refusal.limit), None)
    members |= {
        "reason": told.reason,
        "meter": meter,
        "used": binding.used if binding else None,
        "limit": binding.limit if binding else None,
        "remaining": binding.remaining if binding else None,
        "resets_at": _rfc3339(binding.reset) if binding and binding.reset else None,
        "tier": decision.tier,
        "violated-policies": [refusal.limit],
    }
    if refusal.billing_url:
        members["checkoutUrl"] = refusal.billing_url
    if refusal.support_contact:
        members["supportContact"] = refusal.support_contact
    headers = limit_headers(decision.limits, now)
    if refusal.retry_after is not None:
        headers["Retry-After"] = seconds(refusal.retry_after)
    return Answer(status, members, headers)


def limit_headers(limits: Iterable[LimitState], now: datetime) -> dict[str, str]:
    """RateLimit-Policy and RateLimit for every limit that has a number and refuses."""
    return rate_limit(
        Window(
            state.name,
            state.limit,
            state.remaining or 0,
            _seconds_until(state.reset, now),
            int(state.window.total_seconds()) if state.window is not None else None,
            concurrent=state.kind is Kind.CONCURRENCY,
        )
        for state in limits
        if state.limit is not None and (state.kind is not Kind.CAP or state.auto_stop)
    )


def tightest(limits: Iterable[LimitState]) -> LimitState | None:
    """The limit with the least left, of those that can refuse a use: one takes no slot, and some caps only warn."""
    binding = (
        state
        for state in limits
        if state.limit is not None
        and state.kind is not Kind.CONCURRENCY
        and (state.kind is not Kind.CAP or state.auto_stop)
    )
    return min(binding, key=lambda state: state.remaining or 0, default=None)


def seconds(delay: timedelta) -> str:
    """Whole seconds, rounded up and at least 1: a client that waits them is not refused for the same reason."""
    return str(max(1, math.ceil(delay.total_seconds())))


def sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Without the characters that a field cannot hold: a limit's name is the catalog's free text."""
    return {name: value if value.isprintable() else _printable(value) for name, value in headers.items()}


def _printable(value: str) -> str:
    return "".join(c for c in value if c.isprintable())


def _members(type_uri: str, title: str, status: int, detail: str, code: str) -> dict[str, Any]:
    return {"type": type_uri, "title": title, "status": status, "detail": detail, "code": code}


def _seconds_until(reset: datetime | None, now: datetime) -> int | None:
    return None if reset is None else max(0, math.ceil((reset - now).total_seconds()))


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
