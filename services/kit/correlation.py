"""The id of the request that a task works for: in its log lines, and in the metadata of what it asks of others."""

from __future__ import annotations

from contextvars import ContextVar

KEY = "x-request-id"  # in gRPC metadata, as in HTTP headers
_LONGEST = 128

request_id: ContextVar[str] = ContextVar("request_id", default="")


def take(value: str | bytes) -> None:
    """Works for this id from now on, unless it is none that anybody of ours made or let in."""
    text = value if isinstance(value, str) else value.decode("ascii", "replace")
    if 0 < len(text) <= _LONGEST and text.isprintable():
        request_id.set(text)
