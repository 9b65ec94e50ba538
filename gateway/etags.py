"""Answers that callers may keep: an ETag, and 304 for those who have it (RFC 9110, section 13)."""

from __future__ import annotations

import hashlib

from fastapi import Request, Response


def answer(request: Request, body: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """The body with its ETag, or 304 without one."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    sent = {**headers, "ETag": tag}
    known = ",".join(request.headers.getlist("if-none-match"))
    if known.strip() == "*" or tag in {each.strip().removeprefix("W/") for each in known.split(",")}:
        return Response(status_code=304, headers=sent)
    return Response(body, headers=sent, media_type=media_type)
