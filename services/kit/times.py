"""Instants as requests over gRPC carry them."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.kit.errors import InvalidArgument


def to_instant(stamp: Timestamp, field: str) -> datetime:
    """In UTC, to the microsecond. Raises InvalidArgument naming `field`: not every Timestamp is an instant."""
    try:
        return stamp.ToDatetime(UTC)
    except ValueError:
        raise InvalidArgument(f"{field} must be a time of the years 1 to 9999.", field=field) from None
