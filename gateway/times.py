"""Instants as the REST surface writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp


def rfc3339(stamp: Timestamp) -> str:
    """`2026-04-01T00:00:00Z`: whole seconds, rounded up, so that what it announces has happened by then."""
    whole = stamp.seconds + (1 if stamp.nanos else 0)
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=whole)).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_millis(stamp: Timestamp) -> str:
    """`2026-04-01T00:00:00.000Z`, rounded down, so that what it announces holds until then."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=stamp.seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{stamp.nanos // 1_000_000:03}Z"
