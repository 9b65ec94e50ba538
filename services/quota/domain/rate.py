"""At most N units in any window: a log of what was granted in the last one, exact at both of its ends.

A grant at `t` counts while `t` ≤ now < `t` + window, so that no window that is open at one end ever holds more than
N. A limit of up to `MOST` keeps the instant of each grant, to the microsecond. A greater one keeps instants of a
`MOST`th of its window, rounded up: still never more than N, and refused at most that much longer. So a log has at
most `MOST` + 1 entries, whatever the limit.
"""

from __future__ import annotations

from array import array
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeAlias

MOST = 600

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# The units of all entries, then the entries: instants in microseconds since 1970, ascending, each followed by the units
# granted then. 64-bit numbers in a row, so that a log is read and written as it lies; with its sum, so that what is
# used needs only a look at what expired.
Log: TypeAlias = "array[int]"

EMPTY: Log = array("q", (0,))


@lru_cache(maxsize=16)  # a batch has one instant
def instant(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def used(log: Log, window: int, now: int) -> int:
    """Units in the window that ends now. `window` and `now` in microseconds."""
    return log[0] - _expired(log, now - window)[1]


def add(log: Log, limit: int, window: int, now: int, amount: int) -> None:
    """Notes a grant, and forgets what no window from now on can hold."""
    at = _noted(log, limit, window, now)
    index, units = _expired(log, now - window)
    if index > 1:
        del log[1:index]
    log[0] += amount - units
    if len(log) > 1 and log[-2] == at:
        log[-1] += amount
    else:
        log.extend((at, amount))


def free_in(log: Log, limit: int, window: int, now: int, amount: int) -> timedelta | None:
    """How long until `amount` units fit, if nothing else is granted. None: they never do."""
    if amount > limit:
        return None
    index, units = _expired(log, now - window)
    excess = log[0] - units + amount - limit
    wait = 0
    while excess > 0:
        wait = log[index] + window - now
        excess -= log[index + 1]
        index += 2
    return timedelta(microseconds=wait)


def reset(log: Log, limit: int, window: int, now: int, granted: int) -> int | None:
    """When nothing is used any more, if nothing else is granted after `granted` units now.

    In whole seconds since 1970, never too early. None: nothing is used.
    """
    if not granted and (len(log) == 1 or log[-2] <= now - window):
        return None
    last = _noted(log, limit, window, now) if granted else log[-2]
    return -(-(last + window) // 1_000_000)


def _expired(log: Log, begun: int) -> tuple[int, int]:
    """Where the entries begin that still count, and the units of those before. `add` leaves few before them."""
    index, units, end = 1, 0, len(log)
    while index < end and log[index] <= begun:
        units += log[index + 1]
        index += 2
    return index, units


def _noted(log: Log, limit: int, window: int, now: int) -> int:
    """The instant under which a grant of now is kept."""
    grain = 1 if limit <= MOST else -(-window // MOST)
    at = -(-now // grain) * grain
    # A clock that was set back must not hide what came before.
    return max(at, log[-2]) if len(log) > 1 else at


def new() -> Log:
    """A log of nothing."""
    return array("q", (0,))


def pack(log: Log) -> bytes:
    """In the byte order of the machine: the store and its processes are of one kind."""
    return log.tobytes()


def unpack(data: bytes) -> Log:
    log: Log = array("q")
    log.frombytes(data)
    return log if log else new()
