"""An example of every body, answer and problem, from the fields' own examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from gateway.problem_types import KNOWN
from gateway.problems import QUOTA_EXCEEDED, REDUCED_CAPACITY

PARAMETERS = {
    "slug": "adas-relay",
    "key_id": "key_019ab0c4d5e67f8899aabbccddeeff00",
    "meter": "messages",
    "request_id": "lease_019ab0c4d5e67f8899aabbccddeeff00",
    "account_id": "acct_019ab0c4d5e67f8899aabbccddeeff00",
    "event_id": "evt_1TxYz",
    "message_id": "msg_019ab0c4d5e67f8899aabbccddeeff00",
    "name": "models/base.bin",
}
_TIME = "2026-04-01T00:00:00Z"
# Fields that mean the same everywhere, where the model has no example of its own.
_USUAL: dict[str, Any] = {
    "account_id": PARAMETERS["account_id"],
    "active": 3,
    "after": 1_000_000,
    "amount": 2900,
    "amount_due": 1450,
    "before": 100_000,
    "because": ["The subscription sub_1TxYz is active.", "Its price is of the tier pro."],
    "billing_email": "ada@example.com",
    "busy": 0,
    "catalog_hash": "5f1c1e6a2b0d",
    "created_at": _TIME,
    "currency": "usd",
    "current_tier": "free",
    "customer_id": "cus_1TxYz",
    "customModelAllowed": True,
    "deleted_at": "2026-05-01T00:00:00Z",
    "description": "For teams",
    "details": {"kind": "live"},
    "eligible": True,
    "email": "ada@example.com",
    "ends_subscription": True,
    "erased_at": _TIME,
    "event_at": _TIME,
    "event_id": "evt_1TxYz",
    "event_type": "customer.subscription.updated",
    "fewer_than": 100,
    "held": 2,
    "id": "evt_1TxYz",
    "invoice_id": "in_1TxYz",
    "unknown_price_ids": ["price_1TxYz"],
    "joined_at": _TIME,
    "keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "k1", "x": "11qYAYKxCrfVS_7TyWQ"}],
    "limit": 1000,
    "liveDownloadsThisPeriod": 312,
    "liveKeyIssuanceAllowed": True,
    "lookup_key": "skytale_pro_month",
    "meters": ["messages"],
    "missed_events": 0,
    "name": "Ada's Relay",
    "ours": "active",
    "period_end": "2026-05-01T00:00:00Z",
    "period_start": _TIME,
    "payload": {"id": "evt_1TxYz", "object": "event", "type": "invoice.paid"},
    "price_id": "price_1TxYz",
    "price_tier": "pro",
    "product": "Skytale",
    "proration_time": _TIME,
    "reads_waiting": 0,
    "reason": "incident 4711",
    "received_at": _TIME,
    "remaining": 688,
    "request_id": "req_019ab0c4d5e67f8899aabbccddeeff00",
    "resets_at": "2026-05-01T00:00:00Z",
    "serviceKeyIssuanceAllowed": True,
    "services": {"billing": "ok", "quota": "ok", "notify": "ok"},
    "set_at": _TIME,
    "set_by": "operator",
    "stagingQuotaUsed": 4,
    "status": "active",
    "stripe_customer_id": "cus_1TxYz",
    "stripes": "past_due",
    "subject": PARAMETERS["key_id"],
    "subscription_id": "sub_1TxYz",
    "terms": "Order 4711",
    "tier": "pro",
    "total": 1450,
    "until": "2026-04-08T00:00:00Z",
    "used": 312,
    "changed_at": _TIME,
}
_FIELDS = {  # the field that a refusal of this code usually names
    "invalid_argument": "email",
    "bad_page_token": "page_token",
    "validation_failed": "amount",
    "idempotency_key_invalid": "Idempotency-Key",
    "idempotency_key_reused": "Idempotency-Key",
    "unknown_tier": "tier",
    "unknown_price": "price_id",
    "contact_sales": "tier",
    "redirect_not_allowed": "success_url",
    "unknown_meter": "meter",
    "counter_full": "amount",
    "reversed": "Idempotency-Key",
    "unknown_key_kind": "kind",
}
_MEMBERS: dict[str, dict[str, Any]] = {
    "insufficient_scope": {"scope": "billing"},
    "insufficient_role": {"role": "admin"},
    "contact_sales": {"contact": "mailto:contact@example.com"},
    "plan_refused": {"code": "service_key_limit_reached", "reason": "service_key_limit_reached", "used": 5, "limit": 5},
    "not_ready": {"services": {"billing": "ok", "quota": "down", "notify": "ok"}},
}
_REASONS = {
    402: "message_quota_exceeded",
    403: "feature_not_in_plan",
    429: "rate_limit_exceeded",
    503: "downloads_suspended",
}


def of(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str = "") -> Any:
    """A value that the schema allows: its own example, or one put together of its members'. `name`: the field's."""
    for found in ("example", "const"):
        if found in schema:
            return schema[found]
    if schema.get("examples"):
        return schema["examples"][0]
    if "$ref" in schema:
        return of(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas)
    if "default" in schema:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    usual = _USUAL.get(name, _TIME if name.endswith("_at") and "anyOf" not in schema else None)
    if usual is not None and _fits(usual, schema):
        return usual
    if "allOf" in schema:
        return {key: value for part in schema["allOf"] for key, value in of(part, schemas).items()}
    if "anyOf" in schema:
        return None if {"type": "null"} in schema["anyOf"] else of(schema["anyOf"][0], schemas, name)
    return _of_type(schema, schemas)


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Fields of one name differ in type here and there: `meters` are names, or objects."""
    if "anyOf" in schema:
        return any(_fits(value, choice) for choice in schema["anyOf"])
    if isinstance(value, list):
        items = schema.get("items", {})
        return schema.get("type") == "array" and "$ref" not in items and all(_fits(each, items) for each in value)
    kinds = {str: "string", bool: "boolean", int: "integer", dict: "object"}
    return schema.get("type") == kinds[type(value)]


def _of_type(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return {name: of(inner, schemas, name) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [of(schema["items"], schemas)] if schema.get("items") else []
    if kind == "integer":
        return max(1, int(schema.get("minimum", 1)))
    return {"boolean": False, "string": "…"}.get(str(kind))


def of_body(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """What a caller would send: what is required, and what has an example of its own."""
    needed = schema.get("required", ())
    return {
        name: of(inner, schemas, name)
        for name, inner in schema.get("properties", {}).items()
        if name in needed or inner.get("examples")
    }


def of_path(path: str) -> str:
    return path.format_map(_Known({name: quote(value) for name, value in PARAMETERS.items()}))


class _Known(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return name


def of_problem(path: str, public_url: str, code: str, status: int | None = None) -> dict[str, Any]:
    """The problem document of a code, as a request to `path` gets it; without a code: a limit's refusal."""
    if not code:
        return _refusal(path, public_url, status or 402)
    known = KNOWN[code]
    field = _FIELDS.get(code)
    named = {"field": field, "errors": [{"field": field, "detail": known.detail}]} if field else {}
    return _document(path, f"{public_url}/problems#{code}", code, known.title, known.status, known.detail) | (
        named | _MEMBERS.get(code, {})
    )


def _document(path: str, uri: str, code: str, title: str, status: int, detail: str) -> dict[str, Any]:
    said = {"type": uri, "title": title, "status": status, "detail": detail, "instance": of_path(path), "code": code}
    request_id = "req_019ab0c4d5e67f8899aabbccddeeff00"
    meta = {"meta": {"request_id": request_id}} if path.startswith("/admin/") else {}
    return said | {"request_id": request_id} | meta


def _refusal(path: str, public_url: str, status: int) -> dict[str, Any]:
    suspended = status == 503
    reason = _REASONS[status]
    said = _document(
        path,
        REDUCED_CAPACITY if suspended else QUOTA_EXCEEDED,
        "payment_required" if status == 402 and path == "/api/download" else reason,
        "Temporarily reduced capacity" if suspended else "Quota exceeded",
        status,
        "Suspended by an operator." if suspended else "A limit of your plan is reached.",
    )
    counted = {402: (100_000, 100_000, 0), 429: (20, 20, 0)}.get(status, (None, None, None))
    return said | {
        "reason": reason,
        "meter": "live_downloads" if path == "/api/download" else "messages",
        "used": counted[0],
        "limit": counted[1],
        "remaining": counted[2],
        "resets_at": "2026-04-01T00:00:00Z" if status in {402, 429} else None,
        "tier": "free",
        "violated-policies": ["messages_per_month"] if status == 402 else [],
        **({"checkoutUrl": f"{public_url}/dash/adas-relay/billing"} if status == 402 else {}),
        "supportContact": "mailto:contact@example.com",
    }
