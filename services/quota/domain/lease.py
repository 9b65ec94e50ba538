"""A hold with an expiry: a slot of its meter's concurrency, units in reserve, or both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

DURATION = timedelta(minutes=10)  # where neither the caller nor the catalog says how long


@dataclass
class Lease:
    """Never changed in place: who was told of one keeps what was told. `reserved` in units, times in UTC.

    From `expire_time` on it holds nothing, whether its row is still there or not.
    """

    id: str
    account_id: str
    meter: str
    reserved: int
    acquire_time: datetime
    expire_time: datetime
    key_id: str = ""
    subject: str = ""  # in the caller's words; only the ledger keeps it, to know a request that comes back
