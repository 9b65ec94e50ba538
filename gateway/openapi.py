"""The OpenAPI 3.1 document: complete enough for a client generator and a fuzzer."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.operations import ACCESS_TOKEN, API_KEY, OPERATOR_TOKEN, OUTSIDE_TOKEN, SESSION_TOKEN

_DESCRIPTION = """Plans, billing and usage over REST. Send an API key (or, for usage, an access token) as
`Authorization: Bearer …`. Every refusal is a problem document (RFC 9457): act on its `code`.
Unknown members, converted types (`"1"` for 1) and duplicate keys in bodies are refused."""

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
        "field": {"type": "string", "description": "The first field at fault."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
    "additionalProperties": True,
}


def _limit(kind: str) -> dict[str, Any]:
    return {"type": ["integer", "null"], "description": f"{kind}; null: unlimited."}


_REFUSAL = {
    "title": "UsageRefused",
    "description": "A limit refused the use; nothing was counted.",
    "allOf": [
        {"$ref": "#/components/schemas/Problem"},
        {
            "type": "object",
            "required": ["reason", "meter", "used", "limit", "remaining", "resets_at"],
            "properties": {
                "reason": {"type": "string", "description": "The catalog's word; the same as `code`."},
                "meter": {"type": "string"},
                "used": {"type": ["integer", "null"]},
                "limit": _limit("Units"),
                "remaining": _limit("Units left"),
                "resets_at": {"type": ["string", "null"], "format": "date-time"},
                "violated-policies": {"type": "array", "items": {"type": "string"}},
                "checkoutUrl": {"type": "string", "format": "uri", "description": "Where to buy more."},
                "supportContact": {"type": "string", "description": "Whom to write to."},
            },
        },
    ],
}

_COMPONENTS: dict[str, dict[str, Any]] = {
    "schemas": {"Problem": _PROBLEM, "UsageRefused": _REFUSAL},
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
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": '^[!#-~]+$|^"[ -~]+"$'},
            "example": "order-4711",
        },
        "RequestId": {
            "name": "X-Request-Id",
            "in": "header",
            "required": False,
            "description": "Taken over when it is 1 to 128 of `A-Z a-z 0-9 . _ -`; else one is made.",
            "schema": {"type": "string"},
        },
    },
    "headers": {
        "RequestId": {
            "description": "Names this request in the logs.",
            "schema": {"type": "string"},
        },
        "RetryAfter": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
        "RateLimitPolicy": {
            "description": 'Each limit and its size: `"messages_per_month";q=100000`; a rate has its window in seconds '
            "(`w`), what counts at once says so (`qu`).",
            "schema": {"type": "string"},
        },
        "RateLimit": {
            "description": 'What is left of each limit, and the seconds until it resets: `"…";r=50;t=30`.',
            "schema": {"type": "string"},
        },
    },
}


def document(app: FastAPI, public_url: str) -> dict[str, Any]:
    described = get_openapi(
        title="tollway",
        version="1",
        openapi_version="3.1.0",
        description=_DESCRIPTION,
        routes=app.routes,
        servers=[{"url": public_url}],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    components = described.setdefault("components", {})
    for kind, members in _COMPONENTS.items():
        components.setdefault(kind, {}).update(members)
    for path in described["paths"].values():
        for operation in path.values():
            operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/RequestId"})
            for response in operation["responses"].values():
                response.setdefault("headers", {})["X-Request-Id"] = {"$ref": "#/components/headers/RequestId"}
    return described
