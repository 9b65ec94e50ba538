"""What of a request can be checked without state. Each fault is an InvalidArgument that names its field."""

from __future__ import annotations

import re
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from services.kit.errors import InvalidArgument
from services.quota.errors import UnknownMeter

MOST_UNITS = 2**62
MOST_CHARACTERS = 255
SHORTEST = timedelta(seconds=1)
LONGEST = timedelta(hours=24)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# At most 12 places after the point, as prices have (Stripe, `unit_amount_decimal`).
_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,12})?")


def check_text(value: str, name: str, most: int = MOST_CHARACTERS) -> None:
    # Control characters mark keys of our own making, and PostgreSQL's text cannot hold the first of them.
    if not value or len(value) > most or _CONTROL.search(value):
        raise InvalidArgument(f"{name} must have 1 to {most} characters and no control characters.", field=name)


def check_meter(value: str) -> None:
    # The first characters mark the ledger's lines of what is no meter.
    if not value or value[0] < " ":
        raise UnknownMeter(value)


def check_units(value: int, name: str, least: int) -> None:
    if not least <= value <= MOST_UNITS:
        raise InvalidArgument(f"{name} must be a whole number from {least} to 2^62.", field=name)


def check_decimal(value: str, name: str) -> None:
    if not _DECIMAL.fullmatch(value):
        raise InvalidArgument(
            f"{name} must be a decimal number such as 12.5: at most 15 digits, and 12 after the point.", field=name
        )


def to_duration(message: Duration) -> timedelta:
    """Of a lease: 1 s to 24 h, to the microsecond."""
    # Looked at first: a timedelta cannot hold every Duration.
    span = timedelta(seconds=message.seconds, microseconds=message.nanos // 1000) if _sane(message) else timedelta(0)
    if not SHORTEST <= span <= LONGEST:
        raise InvalidArgument("duration must be at least 1 s and at most 24 h.", field="duration")
    return span


def _sane(message: Duration) -> bool:
    return 0 <= message.seconds <= LONGEST.total_seconds() and 0 <= message.nanos < 1_000_000_000
