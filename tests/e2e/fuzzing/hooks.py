"""Loaded by schemathesis in a process of its own (SCHEMATHESIS_HOOKS). TOLLWAY_FUZZ_CREDENTIALS holds credentials."""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis

_CREDENTIALS: dict[str, str] = json.loads(os.environ["TOLLWAY_FUZZ_CREDENTIALS"])  # security scheme → credential
# Answers that say: this has not the shape that the document promises to take.
_SHAPE = frozenset(
    {"malformed_json", "duplicate_key", "unsupported_media_type", "validation_failed", "idempotency_key_invalid"}
)


@schemathesis.auth(refresh_interval=None)
class Credentials:
    """Of the kind that the operation asks for."""

    def get(self, case: schemathesis.Case, context: schemathesis.AuthContext) -> str | None:
        named = [name for each in context.operation.definition.raw.get("security", ()) for name in each]
        return next((_CREDENTIALS[name] for name in named if name in _CREDENTIALS), None)

    def set(self, case: schemathesis.Case, data: str, context: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.check
def the_shape_is_documented(ctx: Any, response: Any, case: schemathesis.Case) -> None:
    """What the document allows may be refused for what it means, never for its shape."""
    positive = case.meta is not None and case.meta.generation.mode.is_positive
    if positive and not _whole_floats(case.body) and response.status_code in {400, 415, 422}:
        problem = response.json()
        assert problem["code"] not in _SHAPE, f"allowed by the document, and refused: {problem}"


def _whole_floats(value: Any) -> bool:
    """1.0 is an integer to JSON Schema and none to us: the document says so in words."""
    if isinstance(value, dict):
        return any(map(_whole_floats, value.values()))
    if isinstance(value, list):
        return any(map(_whole_floats, value))
    return isinstance(value, float) and value.is_integer()
