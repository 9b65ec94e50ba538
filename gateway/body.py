"""Reading what callers send: within a size and a time, as exactly one unambiguous JSON document, in a known shape."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gateway.problems import Problem
from gateway.validation import detail_of, fields_of

MAX_JSON_BYTES = 64 * 1024
MAX_WEBHOOK_BYTES = 1024 * 1024
READ_S = 20.0  # a body that trickles holds a connection, not for ever
_MAX_DIGITS = 40  # more than any field takes; longer integers cost quadratic time to read


class Body(BaseModel):
    """Base of the request bodies: no unknown members, no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _printable(text: str) -> str:
    if any(unicodedata.category(char) == "Cc" for char in text):
        raise ValueError("control characters are not accepted")
    return text


_NO_CONTROL = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"  # the same, for those who read the description
Text = Annotated[str, AfterValidator(_printable), Field(json_schema_extra={"pattern": _NO_CONTROL})]


async def read(request: Request, limit: int) -> bytes:
    """The body, at most `limit` bytes. Raises body_too_large before reading when the length is announced."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and len(announced) < 20 and int(announced) > limit:
        raise _too_large(limit)
    parts, size = [], 0
    try:
        async with asyncio.timeout(READ_S):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
    except TimeoutError:
        raise Problem("body_timeout", headers={"Connection": "close"}) from None
    return b"".join(parts)


def _too_large(limit: int) -> Problem:
    # The connection stays open while the rest is thrown away: closing it would take the answer down with it.
    return Problem("body_too_large", f"The body may have {limit} bytes.")


def parse(raw: bytes) -> Any:
    """Raises malformed_json, or duplicate_key: parsers disagree on which of two values counts."""
    try:
        return json.loads(
            raw.decode("utf-8"), object_pairs_hook=_members, parse_int=_integer, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise Problem("malformed_json") from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Problem("duplicate_key")
    return members


def _integer(digits: str) -> int | float:
    # A float is refused where an integer is asked for, with the field's name; so are integers without end.
    return int(digits) if len(digits) <= _MAX_DIGITS else float("inf")


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are not JSON


def is_json(content_type: str) -> bool:
    media, _, parameters = content_type.partition(";")
    kind = media.strip().lower()
    charset = parameters.strip().lower().replace('"', "")
    return (kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))) and (
        not charset.startswith("charset=") or charset in {"charset=utf-8", "charset=utf8"}
    )


M = TypeVar("M", bound=BaseModel)


def checked(model: type[M], value: Any) -> M:
    """Raises validation_failed, naming each field at fault and repeating no value."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fields = fields_of(error.errors(include_url=False, include_context=False, include_input=False))
        raise Problem("validation_failed", detail_of(fields), fields=fields) from None


def json_body(model: type[M], *, optional: bool = False) -> Callable[[Request], Awaitable[M]]:
    """A dependency that reads the body as `model`. `optional`: no body at all means an empty object."""

    async def read_body(request: Request) -> M:
        content_type = request.headers.get("content-type", "")
        if content_type and not is_json(content_type):
            # Asked first: nobody sends megabytes to hear that the type is wrong. `curl -X POST` alone has no type.
            raise Problem("unsupported_media_type")
        raw = await read(request, MAX_JSON_BYTES)
        if not raw and optional:
            return checked(model, {})
        if not content_type and raw:
            raise Problem("unsupported_media_type")
        return checked(model, parse(raw))

    return read_body
