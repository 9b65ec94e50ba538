"""A refusal as HTTP: an RFC 9457 problem document and headers, in the shape that tollway's gateway gives them."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from tollway.client.decision import Decision, LimitState
from tollway.client.gate import Blocked

MEDIA_TYPE = "application/problem+json"
# The types that draft-ietf-httpapi-ratelimit-headers registers with IANA.
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
_MOST = 999_999_999_999_999  # an Integer of RFC 9651; with one digit more, parsers drop the whole field

Headers = list[tuple[str, str]]


def refusal(decision: Decision, meter: str, path: str) -> tuple[dict[str, Any], Headers]:
    """The document and the headers of a limit's refusal."""
    reduced, binding = decision.http_status == 503, decision.binding
    document: dict[str, Any] = {
        "type": REDUCED_CAPACITY if reduced else QUOTA_EXCEEDED,
        "title": "Temporarily reduced capacity" if reduced else "Quota exceeded",
        "status": decision.http_status,
        "detail": decision.detail,
        "instance": _instance(path),
        "code": decision.reason,
        "reason": decision.reason,
        "meter": meter,
        "used": binding.used if binding else None,
        "limit": binding.limit if binding else None,
        "remaining": binding.remaining if binding else None,
        "resets_at": _rfc3339(binding.resets_at) if binding and binding.resets_at else None,
        "tier": decision.tier,
    }
    optional = {
        "violated-policies": [decision.binding_limit] if decision.binding_limit else [],
        "checkoutUrl": decision.billing_url,
        "supportContact": decision.support_contact,
    }
    document |= {name: value for name, value in optional.items() if value}
    return document, _retry_after(decision.retry_after) + rate_limit(decision.limits)


def blocked(verdict: Blocked, path: str) -> tuple[dict[str, Any], Headers]:
    """The document and the headers when there is no decision."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(verdict.http_status).phrase,
        "status": verdict.http_status,
        "detail": verdict.detail,
        "instance": _instance(path),
        "code": verdict.reason,
        "reason": verdict.reason,
    }
    return document, _retry_after(verdict.retry_after)


def body(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def rate_limit(limits: tuple[LimitState, ...]) -> Headers:
    """RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers); nothing when nothing limits.

    A cap that only warns limits nothing.
    """
    now = datetime.now(UTC)
    policies, states = [], []
    for state in limits:
        if state.limit is None or (state.kind == "cap" and not state.auto_stop):
            continue
        name = _quoted(state.name)
        policies.append(f"{name};q={min(state.limit, _MOST)}{_policy(state)}")
        reset = f";t={_resets_in(state, now)}" if state.resets_at is not None else ""
        states.append(f"{name};r={min(state.remaining or 0, _MOST)}{reset}")
    if not policies:
        return []
    return [("RateLimit-Policy", ", ".join(policies)), ("RateLimit", ", ".join(states))]


def _resets_in(state: LimitState, now: datetime) -> int:
    """Seconds. A rate is free again within its window, whatever was rounded up."""
    left = max(timedelta(0), (state.resets_at or now) - now)
    return _seconds(left if state.window is None else min(left, state.window))


def _policy(state: LimitState) -> str:
    if state.kind == "concurrency":
        return ';qu="concurrent-requests"'
    return "" if state.window is None else f";w={int(state.window.total_seconds())}"


def _quoted(name: str) -> str:
    """A structured-field string (RFC 9651) holds printable ASCII only."""
    shown = "".join(each if " " <= each <= "~" else "?" for each in name)
    return '"' + shown.replace("\\", r"\\").replace('"', r"\"") + '"'


def _retry_after(delay: timedelta | None) -> Headers:
    # Rounded up and at least 1: a caller that waits so long is not refused for the same reason.
    return [] if delay is None else [("Retry-After", str(max(1, _seconds(delay))))]


def _seconds(delay: timedelta) -> int:
    return math.ceil(delay.total_seconds())


def _rfc3339(instant: datetime) -> str:
    """Whole seconds, rounded up, so that what it announces has happened by then."""
    whole = instant.replace(microsecond=0) + timedelta(seconds=1 if instant.microsecond else 0)
    return whole.strftime("%Y-%m-%dT%H:%M:%SZ")


def _instance(path: str) -> str:
    return quote(path[:256], safe="/:@!$&'()*+,;=")
