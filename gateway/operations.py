"""What OpenAPI says of a route beyond its answer: body, headers, credentials and the problems it may answer with."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from gateway import problems
from gateway.problem_types import KNOWN

API_KEY = "apiKey"
ACCESS_TOKEN = "accessToken"  # noqa: S105 (the name of a security scheme)
OPERATOR_TOKEN = "operatorToken"  # noqa: S105 (the name of a security scheme)
SESSION_TOKEN = "session"  # noqa: S105 (the name of a security scheme)
OUTSIDE_TOKEN = "identityProvider"  # noqa: S105 (the name of a security scheme)
SESSION = (SESSION_TOKEN, OUTSIDE_TOKEN, API_KEY)  # what the routes of an account's people take
_EVERYWHERE = ("internal",)


def operation(
    *codes: str,
    body: type[BaseModel] | None = None,
    body_required: bool = True,
    idempotent: bool = False,
    credentials: tuple[str, ...] = (),
    answer_headers: dict[str, Any] | None = None,
    ok: int = 200,
) -> dict[str, Any]:
    """Keyword arguments for a route decorator. `codes`: the problems that this route names, beside the usual ones."""
    extra: dict[str, Any] = {"security": [{name: []} for name in credentials]}
    named = [*codes, *_EVERYWHERE]
    if credentials:
        named += ["unauthenticated", "authorization_malformed", "api_key_malformed", "api_key_unknown"]
        named += ["api_key_revoked", "unavailable", "deadline_exceeded"]
    if OUTSIDE_TOKEN in credentials:
        named += ["token_invalid", "token_expired", "jwks_unavailable"]
    if SESSION_TOKEN in credentials:
        named += ["session_invalid"]
    if body is not None:
        named += ["malformed_json", "duplicate_key", "body_timeout", "body_too_large", "unsupported_media_type"]
        named += ["validation_failed"]
        content = {"application/json": {"schema": body.model_json_schema()}}
        extra["requestBody"] = {"required": body_required, "content": content}
    if idempotent:
        named += ["idempotency_key_invalid", "idempotency_key_reused"]
        extra["parameters"] = [{"$ref": "#/components/parameters/IdempotencyKey"}]
    responses: dict[int | str, dict[str, Any]] = {}
    for code in dict.fromkeys(named):
        _document(responses, code)
    if answer_headers:
        responses[ok] = {"headers": answer_headers}
    return {"openapi_extra": extra, "responses": responses}


def _document(responses: dict[int | str, dict[str, Any]], code: str) -> None:
    known = KNOWN[code]
    answer = responses.setdefault(
        known.status,
        {
            "description": "",
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
        },
    )
    answer["description"] = "; ".join(filter(None, (answer["description"], f"`{code}`")))
    if known.status == 401:
        answer["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    if known.status in {503, 504}:
        answer["headers"] = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
    answer["content"][problems.MEDIA_TYPE]["examples"][code] = {
        "value": {
            "type": f"https://api.example.com/problems#{code}",
            "title": known.title,
            "status": known.status,
            "detail": known.detail,
            "instance": "/v1/example",
            "code": code,
            "request_id": "req_019ab0c4d5e67f8899aabbccddeeff00",
        }
    }
