"""What OpenAPI says once for all routes: problems, credentials, headers, parameters, tags."""

from __future__ import annotations

from typing import Any

from gateway.operations import ACCESS_TOKEN, API_KEY, OPERATOR_TOKEN, OUTSIDE_TOKEN, SESSION_TOKEN

DESCRIPTION = """Plans, billing and usage over REST. Send an API key (or, for usage, an access token) as
`Authorization: Bearer …`.

Every refusal is a problem document (RFC 9457): act on its `code`, show its `detail`. Unknown members, converted types
(`"1"` or `1.0` for 1) and duplicate keys in bodies are refused. Every answer has an `X-Request-Id`: tell it when you
ask for help. Where `Idempotency-Key` is taken, send one: a retry then does nothing twice. Another account's things are
404, with the same words as things that there are not.

The paths under `/v1/billing`, `/v1/orgs/{slug}/billing` and `/admin/billing` are the same calls in the words of three
products. Methods that a path does not list are 405, with `Allow`; `HEAD` works wherever `GET` does."""

TAGS = [
    ("accounts", "Sign up: an account on the free tier and its first API key."),
    ("tokens", "Short-lived access tokens for API keys, and the public keys that verify them."),
    ("plans", "What is for sale."),
    ("usage", "Count a use before the work is done; see what is left."),
    ("downloads", "Downloads: one unit of the key's meter, one lease, one signed address each."),
    ("billing", "Checkout, portal, status, change of plan, refund."),
    ("orgs", "An account as its people see it: members, audit log, caps."),
    ("keys", "API keys: issue, list, rotate, revoke."),
    ("operator", "For whoever runs this installation, with the operator's token."),
    ("webhooks", "Where Stripe tells what happened."),
    ("health", "For load balancers and orchestrators."),
]

_INTEGER = {"type": ["integer", "null"]}
_PROBLEM = {
    "title": "Problem",
    "description": "RFC 9457. Members beyond these depend on `code`.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Stable; explains the problem."},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "For a person. Programs act on `code`."},
        "instance": {"type": "string", "description": "The path that was asked."},
        "code": {"type": "string", "pattern": "^[a-z0-9_]+$"},
        "request_id": {"type": "string"},
        "meta": {
            "type": "object",
            "description": "Under /admin: the same `request_id` where answers there have it.",
            "required": ["request_id"],
            "properties": {"request_id": {"type": "string"}},
        },
    },
    "additionalProperties": True,
}
_LINKS = {
    "checkoutUrl": {"type": "string", "format": "uri", "description": "Where to buy more."},
    "supportContact": {"type": "string", "description": "Whom to write to."},
}


def _with(title: str, description: str, properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    more = {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})
    return {"title": title, "description": description, "allOf": [{"$ref": "#/components/schemas/Problem"}, more]}


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


_FIELD = {
    "type": "object",
    "required": ["field", "detail"],
    "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
}
_SCHEMAS = {
    "Problem": _PROBLEM,
    "FieldProblem": _with(
        "FieldProblem",
        "Something in the request is not accepted.",
        {
            "field": _text("The first field at fault; a header's name for a header."),
            "errors": {"type": "array", "items": _FIELD},
            "contact": _text("With `contact_sales`: whom to write to."),
        },
    ),
    "ForbiddenProblem": _with(
        "ForbiddenProblem",
        "The credentials are good, and not enough.",
        {
            "scope": _text("With `insufficient_scope`: the one that is missing."),
            "role": _text("With `insufficient_role`: the least that would do."),
        },
    ),
    "RefusedProblem": _with(
        "RefusedProblem",
        "The plan does not include it, or it was not paid.",
        {"reason": _text("The catalog's word for why."), "used": _INTEGER, "limit": _INTEGER, **_LINKS},
    ),
    "UsageRefused": _with(
        "UsageRefused",
        "A limit refused the use; nothing was counted.",
        {
            "reason": _text("The catalog's word for the limit."),
            "meter": {"type": "string"},
            "used": {**_INTEGER, "description": "null: no count refused, but a switch or a gate."},
            "limit": {**_INTEGER, "description": "Units."},
            "remaining": {**_INTEGER, "description": "Units left."},
            "resets_at": {"type": ["string", "null"], "format": "date-time"},
            "tier": {"type": "string"},
            "violated-policies": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Named as in RateLimit.",
            },
            **_LINKS,
        },
        ("reason", "meter", "used", "limit", "remaining", "resets_at", "tier"),
    ),
    "NotReadyProblem": _with(
        "NotReadyProblem",
        "A service does not answer.",
        {"services": {"type": "object", "additionalProperties": {"enum": ["ok", "down"]}}},
        ("services",),
    ),
}

COMPONENTS: dict[str, dict[str, Any]] = {
    "schemas": _SCHEMAS,
    "securitySchemes": {
        API_KEY: {"type": "http", "scheme": "bearer", "description": "An API key: `sk_live_…`."},
        ACCESS_TOKEN: {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "From POST /v1/auth/token; at most an hour. Verify it yourself by /.well-known/jwks.json.",
        },
        SESSION_TOKEN: {"type": "http", "scheme": "bearer", "description": "A person who has signed in: `ses_…`."},
        OUTSIDE_TOKEN: {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A token of the identity provider that the operator trusts (RS256).",
        },
        OPERATOR_TOKEN: {"type": "http", "scheme": "bearer", "description": "TOLLWAY_OPERATOR_TOKEN of the gateway."},
    },
    "parameters": {
        "IdempotencyKey": {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Makes a retry safe: the same key and body get the first answer. Bare or quoted.",
            "schema": {"type": "string", "pattern": r'^([!#-~]{1,255}|"([ !#-\[\]-~]|\\["\\]){1,255}")$'},
            "example": "order-4711",
        },
        "IfNoneMatch": {
            "name": "If-None-Match",
            "in": "header",
            "required": False,
            "description": "The ETag of the answer that the caller has.",
            "schema": {"type": "string"},
            "example": '"6f1ed002ab5595859014ebf0951522d9"',
        },
        "RequestId": {
            "name": "X-Request-Id",
            "in": "header",
            "required": False,
            "description": "Taken over when it is 1 to 128 of `A-Z a-z 0-9 . _ -`; else one is made.",
            "schema": {"type": "string"},
            "example": "checkout-17.a",
        },
    },
    "headers": {
        "RequestId": {
            "description": "Names this request in the logs.",
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
            "required": True,
            "example": "req_019ab0c4d5e67f8899aabbccddeeff00",
        },
        "RetryAfter": {
            "description": "Seconds until a retry may succeed.",
            "schema": {"type": "integer", "minimum": 1},
            "example": 30,
        },
        "Challenge": {
            "description": "RFC 6750: which credentials are asked for, and what was wrong with those that were sent.",
            "schema": {"type": "string"},
            "example": 'Bearer realm="tollway", error="invalid_token"',
        },
        "ETag": {
            "description": "Send it back as If-None-Match: 304 when nothing has changed.",
            "schema": {"type": "string"},
            "example": '"6f1ed002ab5595859014ebf0951522d9"',
        },
        "RateLimitPolicy": {
            "description": 'Each limit and its size: `"messages_per_month";q=100000`; a rate has its window in seconds '
            "(`w`), what counts at once says so (`qu`).",
            "schema": {"type": "string"},
            "example": '"messages_per_month";q=100000',
        },
        "RateLimit": {
            "description": 'What is left of each limit, and the seconds until it resets: `"…";r=50;t=30`.',
            "schema": {"type": "string"},
            "example": '"messages_per_month";r=99999;t=86400',
        },
    },
}
