"""At most N units in any window: a log of what was granted in the last one, exact at both of its ends.

A grant at `t` counts while `t` ≤ now < `t` + window, so that no window that is open at one end ever holds more than
N. A limit of up to `MOST` keeps the instant of each grant, to the microsecond. A greater one keeps instants of a
`MOST`th of its window, rounded up: still never more than N, and refused at most that much longer. So a log has at
most `MOST` + 1 entries, whatever the limit.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from functools import lru_cache

MOST = 600

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# Instants in microseconds since 1970, ascending, each followed by the units granted then.
Log = list[int]


@lru_cache(maxsize=16)  # a batch has one
def instant(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def used(log: Log, window: int, now: int) -> int:
    """Units in the window that ends now. `window` and `now` in microseconds."""
    return sum(log[_first(log, now - window) + 1 :: 2])


def add(log: Log, limit: int, window: int, now: int, amount: int) -> None:
    """Notes a grant, and forgets what no window from now on can hold."""
    at = _noted(log, limit, window, now)
    del log[: _first(log, now - window)]
    if log and log[-2] == at:
        log[-1] += amount
    else:
        log += (at, amount)


def free_in(log: Log, limit: int, window: int, now: int, amount: int) -> timedelta | None:
    """How long until `amount` units fit, if nothing else is granted. None: they never do."""
    if amount > limit:
        return None
    index = _first(log, now - window)
    excess = sum(log[index + 1 :: 2]) + amount - limit
    wait = 0
    while excess > 0:
        wait = log[index] + window - now
        excess -= log[index + 1]
        index += 2
    return timedelta(microseconds=wait)


def reset(log: Log, limit: int, window: int, now: int, granted: int) -> datetime | None:
    """When nothing is used any more, if nothing else is granted after `granted` units now.

    In whole seconds, never too early. None: nothing is used.
    """
    if not granted and (not log or log[-2] <= now - window):
        return None
    last = _noted(log, limit, window, now) if granted else log[-2]
    return datetime.fromtimestamp(-(-(last + window) // 1_000_000), UTC)


def _first(log: Log, begun: int) -> int:
    """Where the entries begin that still count. `add` leaves few before them."""
    index = 0
    while index < len(log) and log[index] <= begun:
        index += 2
    return index


def _noted(log: Log, limit: int, window: int, now: int) -> int:
    """The instant under which a grant of now is kept."""
    grain = 1 if limit <= MOST else -(-window // MOST)
    at = -(-now // grain) * grain
    # A clock that was set back must not hide what came before.
    return max(at, log[-2]) if log else at


def pack(log: Log) -> bytes:
    return struct.pack(f"<{len(log)}q", *log)


def unpack(data: bytes) -> Log:
    return list(struct.unpack(f"<{len(data) // 8}q", data))
