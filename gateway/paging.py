"""Lists in pages: `page_size` and `page_token` in the query, `next_page_token` in the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from gateway.problems import Problem

MOST = 1000
_PARAMETERS = [
    {
        "name": "page_size",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST, "default": 100},
    },
    {
        "name": "page_token",
        "in": "query",
        "required": False,
        "description": "The `next_page_token` of the page before.",
        "schema": {"type": "string"},
    },
]


@dataclass(frozen=True)
class Page:
    size: int  # 0: as many as usual
    token: str


async def _query(request: Request) -> Page:
    sent = request.query_params
    size = sent.get("page_size", "")
    if size and not (size.isascii() and size.isdigit() and len(size) <= 4 and 1 <= int(size) <= MOST):
        field = ("page_size", f"A number from 1 to {MOST} is expected.")
        raise Problem("validation_failed", "Not accepted: page_size.", fields=(field,))
    return Page(int(size or 0), sent.get("page_token", "")[:200])


PageQuery = Annotated[Page, Depends(_query)]


def paged(described: dict[str, Any]) -> dict[str, Any]:
    """What `operation` said, with the query's parameters."""
    described["openapi_extra"].setdefault("parameters", []).extend(_PARAMETERS)
    return described
