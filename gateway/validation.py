"""What pydantic found at fault, as a refusal tells it: each field's name and what is wrong, never the value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_MAX_ERRORS = 20
_MAX_NAME = 64
_SAID = {"missing": "is required", "extra_forbidden": "is not a member of this request"}


def fields_of(errors: Iterable[Any], *, skip: int = 0) -> list[tuple[str, str]]:
    """(field, detail) pairs of `ValidationError.errors()`; `skip`: parts of the place that name no field."""
    return [
        (".".join(str(part) for part in found["loc"][skip:])[:_MAX_NAME], _said(found))
        for found in list(errors)[:_MAX_ERRORS]
    ]


def detail_of(fields: Iterable[tuple[str, str]]) -> str:
    named = [name for name, _ in fields if name]
    return f"Not accepted: {', '.join(named)}." if named else "A JSON object is expected."


def _said(found: Any) -> str:
    return _SAID.get(found["type"]) or str(found["msg"]).removeprefix("Value error, ")
