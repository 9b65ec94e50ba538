"""Accounts as this process saw them last, so that a decision need not read them first.

Only what is committed is kept, never what is being decided. What others change meanwhile shows when a decision is
saved, by the account's revision; so a stale account costs a second try and never a wrong answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from services.quota.domain import Lease, Plan

MOST_BYTES = 24 * 2**20
_FIXED = 700  # of an entry without anything in it, with its place in the dictionary
MOST_TURNS = 256


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
    """Least recently used first, up to `MOST_BYTES`.

    An account that another process works on too is left out for some turns, twice as many each time it was found
    stale, and half as many each time it was not: to lock and read it at once is cheaper than to fail first.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._entries: OrderedDict[str, tuple[Known, int]] = OrderedDict()  # with their sizes
        self._most = most_bytes
        self._bytes = 0
        self._turns: dict[str, list[int]] = {}  # account → [turns left, turns given]

    def get(self, account_id: str) -> Known | None:
        kept = self._entries.get(account_id)
        if kept is None:
            return None
        self._entries.move_to_end(account_id)
        return kept[0]

    def keep(self, entry: Known, *, verified: bool = False) -> None:
        """`verified`: it was decided on what was kept, and that was still so."""
        if self._turns and (turns := self._turns.get(entry.id)) is not None:
            if turns[0] > 0:
                return
            if verified:
                turns[1] //= 2
                if turns[1] <= 1:
                    del self._turns[entry.id]
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
        self._turns.clear()
        self._bytes = 0

    def found_stale(self, account_ids: Iterable[str]) -> None:
        for account_id in account_ids:
            self.forget(account_id)
            given = min(MOST_TURNS, 2 * self._turns.get(account_id, (0, 1))[1])
            if len(self._turns) >= MOST_BYTES // 1000:
                self._turns.clear()
            self._turns[account_id] = [given, given]

    def is_contended(self, account_id: str) -> bool:
        return bool(self._turns) and account_id in self._turns and self._turns[account_id][0] > 0

    def take_turn(self, account_id: str) -> None:
        """One decision less until it is believed again that nobody else works on it."""
        turns = self._turns.get(account_id)
        if turns is not None and turns[0] > 0:
            turns[0] -= 1
