"""Instants as the REST surface writes and reads them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BeforeValidator, WithJsonSchema

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,20})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def whole_seconds(stamp: Timestamp) -> int:
    """Since 1970, rounded up."""
    return stamp.seconds + (1 if stamp.nanos else 0)


def rfc3339(stamp: Timestamp) -> str:
    """`2026-04-01T00:00:00Z`: whole seconds, rounded up, so that what it announces has happened by then."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=whole_seconds(stamp))).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_millis(stamp: Timestamp) -> str:
    """`2026-04-01T00:00:00.000Z`, rounded down, so that what it announces holds until then."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=stamp.seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{stamp.nanos // 1_000_000:03}Z"


def _read(value: Any) -> datetime:
    try:
        if isinstance(value, str) and _RFC3339.fullmatch(value):
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("an RFC 3339 time with its zone is expected")


# A member of a body; microseconds, in UTC.
Instant = Annotated[datetime, BeforeValidator(_read), WithJsonSchema({"type": "string", "format": "date-time"})]
