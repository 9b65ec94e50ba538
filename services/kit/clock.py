"""Two clocks. Business time (periods, grace, leases, trials) can be moved in local mode; wall time never moves.

Signatures, token expiry as others check it, timeouts and backoff belong to the wall clock.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The instant, in UTC, timezone-aware."""
        ...


class WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class BusinessClock:
    """Wall time plus an offset of whole seconds that all processes of a local installation share in one file.

    Without a file it is the wall clock. The file is read again whenever it changes; it never moves time backwards,
    whatever is in it.
    """

    def __init__(self, offset_file: Path | None = None) -> None:
        self._file = offset_file
        self._stamp: tuple[int, int] | None = None
        self._offset = timedelta(0)

    def offset(self) -> timedelta:
        if self._file is None:
            return timedelta(0)
        try:
            stat = os.stat(self._file)
        except FileNotFoundError:
            return self._offset
        # The file is replaced, never written in place: the inode tells two writes of one instant apart.
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp != self._stamp:
            offset = timedelta(seconds=int(self._file.read_text() or 0))
            self._offset = max(self._offset, offset)
            self._stamp = stamp
        return self._offset

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset()
