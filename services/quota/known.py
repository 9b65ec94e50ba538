"""Accounts as this process saw them last, so that a decision need not read them first.

Only what is committed is kept, never what is being decided. What others change meanwhile shows when a decision is
saved, by the account's revision; so a stale account costs a second try and never a wrong answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from services.quota.domain import Lease, Plan

MOST_BYTES = 24 * 2**20
_FIXED = 700  # of an entry without anything in it, with its place in the dictionary
TOO_OFTEN = 0.5
REMEMBERED = 8  # batches, about


class Known(NamedTuple):
    """An account at one revision. `counters` and `terms` as their JSON; `rates` packed, those that were asked for."""

    id: str
    rev: int
    version: int
    plan: Plan
    anchor: datetime | None
    interval: str
    counters: str
    terms: str
    leases: tuple[Lease, ...]
    rates: Mapping[tuple[str, str], bytes]

    def size(self) -> int:
        """Bytes, about."""
        size = _FIXED + len(self.counters) + len(self.terms)
        for log in self.rates.values():
            size += 200 + len(log)
        return size + 500 * len(self.leases) if self.leases else size


class KnownAccounts:
    """Least recently used first, up to `MOST_BYTES`."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._entries: OrderedDict[str, tuple[Known, int]] = OrderedDict()  # with their sizes
        self._most = most_bytes
        self._bytes = 0

    def get(self, account_id: str) -> Known | None:
        kept = self._entries.get(account_id)
        if kept is None:
            return None
        self._entries.move_to_end(account_id)
        return kept[0]

    def keep(self, entry: Known) -> None:
        kept = self._entries.get(entry.id)
        if kept is not None and kept[0] is entry:
            return
        self.forget(entry.id)
        size = entry.size()
        self._entries[entry.id] = (entry, size)
        self._bytes += size
        while self._bytes > self._most:
            self._bytes -= self._entries.popitem(last=False)[1][1]

    def forget(self, account_id: str) -> None:
        kept = self._entries.pop(account_id, None)
        if kept is not None:
            self._bytes -= kept[1]

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0


class Trust:
    """How often a batch could be decided on what is known, of late: the share of those that could not."""

    def __init__(self) -> None:
        self._failing = 0.0

    @property
    def is_low(self) -> bool:
        """Locking and reading at once is cheaper now than to fail first."""
        return self._failing > TOO_OFTEN

    def saw(self, *, held: bool) -> None:
        """Under locks, too: there it shows whether what was known would have held."""
        self._failing += ((0.0 if held else 1.0) - self._failing) / REMEMBERED
