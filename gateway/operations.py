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
OPERATOR = (OPERATOR_TOKEN,)

# What quota answers with where it is asked, and where it decides or counts, for which there is a queue.
QUOTA_READ = ("store_unavailable", "billing_unavailable")
QUOTA_DECIDES = (*QUOTA_READ, "queue_full", "expired_in_queue")

_BODY = ("malformed_json", "duplicate_key", "body_timeout", "body_too_large", "unsupported_media_type")
_KEY = ("api_key_malformed", "api_key_unknown", "api_key_revoked")
_OF_CREDENTIALS = {
    API_KEY: _KEY,
    ACCESS_TOKEN: ("token_invalid", "token_expired", "jwks_unavailable"),
    OUTSIDE_TOKEN: ("token_invalid", "token_expired", "jwks_unavailable"),
    SESSION_TOKEN: ("session_invalid", *_KEY),
    OPERATOR_TOKEN: ("operator_token_invalid", "operator_disabled"),
}
# The schema of the problems of a status: which members there are beside the usual ones.
_SCHEMAS = {402: "RefusedProblem", 403: "ForbiddenProblem", 422: "FieldProblem"}
_SCHEMAS_OF_CODES = {"not_ready": "NotReadyProblem"}
RATE_HEADERS = {
    "RateLimit-Policy": {"$ref": "#/components/headers/RateLimitPolicy"},
    "RateLimit": {"$ref": "#/components/headers/RateLimit"},
}
_RETRY_AFTER = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
_ETAG = {"ETag": {"$ref": "#/components/headers/ETag"}}
_CHALLENGE = {"WWW-Authenticate": {"$ref": "#/components/headers/Challenge"}}


def operation(
    *codes: str,
    body: type[BaseModel] | None = None,
    body_required: bool = True,
    idempotent: bool = False,
    credentials: tuple[str, ...] = (),
    metered: bool = False,
    cached: bool = False,
    ok: int = 200,
) -> dict[str, Any]:
    """Keyword arguments for a route decorator. `codes`: the problems that this route names, beside the usual ones.
    `metered`: a limit of the plan may refuse, with one of the statuses that catalogs choose from. `cached`: the answer
    has an ETag."""
    extra: dict[str, Any] = {"security": [{name: []} for name in credentials]}
    named = [*codes, "internal"]
    if credentials:
        named += ["unauthenticated", "authorization_malformed", "unavailable", "deadline_exceeded"]
    for name in credentials:
        named += _OF_CREDENTIALS[name]
    if body is not None:
        named += [*_BODY, "validation_failed"]
        schema = {**body.model_json_schema(ref_template="#/components/schemas/{model}"), "title": _name_of(body)}
        extra["requestBody"] = {"required": body_required, "content": {"application/json": {"schema": schema}}}
    if idempotent:
        named += ["idempotency_key_invalid", "idempotency_key_reused"]
        extra["parameters"] = [{"$ref": "#/components/parameters/IdempotencyKey"}]
    responses: dict[int | str, dict[str, Any]] = {}
    for code in dict.fromkeys(named):
        document_problem(responses, code)
    if metered:
        _document_refusals(responses)
        responses[ok] = {"headers": RATE_HEADERS}
    if cached:
        extra.setdefault("parameters", []).append({"$ref": "#/components/parameters/IfNoneMatch"})
        responses[ok] = {"headers": _ETAG}
        responses[304] = {"description": "What the caller has is current.", "headers": _ETAG}
    return {"openapi_extra": extra, "responses": responses}


def _name_of(body: type[BaseModel]) -> str:
    """The dialects' bodies are called alike; each has its product's name in front."""
    package, _, module = body.__module__.rpartition(".")
    return f"{module.title() if package.endswith('.dialects') else ''}{body.__name__}"


def document_problem(responses: dict[int | str, dict[str, Any]], code: str) -> None:
    """Adds a problem to what a route may answer, with an example that `openapi` completes."""
    known = KNOWN[code]
    schema = {"$ref": f"#/components/schemas/{_SCHEMAS_OF_CODES.get(code) or _SCHEMAS.get(known.status, 'Problem')}"}
    answer = responses.setdefault(
        known.status,
        {"description": "", "content": {problems.MEDIA_TYPE: {"schema": schema, "examples": {}}}},
    )
    answer["description"] = "; ".join(filter(None, (answer["description"], f"`{code}`")))
    headers = answer.setdefault("headers", {})
    if known.status in {401, 403}:
        headers.update(_CHALLENGE)
    if known.status in {429, 503, 504}:
        headers.update(_RETRY_AFTER)
    answer["content"][problems.MEDIA_TYPE]["examples"][code] = {"summary": known.title, "value": {"code": code}}


def _document_refusals(responses: dict[int | str, dict[str, Any]]) -> None:
    """The catalog chooses between four statuses; each has the refusal's members and the limits' headers."""
    refused = {"$ref": "#/components/schemas/UsageRefused"}
    for status in sorted(problems.REFUSALS):
        answer = responses.setdefault(status, {"description": "", "content": {problems.MEDIA_TYPE: {"examples": {}}}})
        said = "A limit of the plan refuses; `code` and `reason` are the catalog's."
        answer["description"] = "; ".join(filter(None, (said, answer["description"])))
        answer.setdefault("headers", {}).update(RATE_HEADERS | _RETRY_AFTER)
        content = answer["content"][problems.MEDIA_TYPE]
        content["schema"] = {"anyOf": [refused, content["schema"]]} if "schema" in content else refused
        content["examples"]["a limit"] = {"summary": "A limit refuses", "value": {"code": "", "status": status}}
