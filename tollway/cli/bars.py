"""Limits as bars, as wide as the terminal allows."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tollway.cli import output

WIDEST, NARROWEST = 30, 5
_WARN, _FULL = 80, 100  # per cent


@dataclass(frozen=True)
class Row:
    """One thing that is counted. `limit` None: unlimited, shown as a count. `note` stands at the end.

    `taken` is what is gone of the limit, where others use it up, too: bar and percentage tell that.
    """

    label: str
    used: int
    limit: int | None
    note: str = ""
    taken: int = 0

    @property
    def gone(self) -> int:
        return max(self.used, self.taken)

    @property
    def count(self) -> str:
        return f"{self.used:,}" if self.limit is None else f"{self.used:,} / {self.limit:,}"

    @property
    def percent(self) -> int:
        """Rounded down, so that 100 means that nothing is left. A limit of 0 is full."""
        return self.gone * 100 // self.limit if self.limit else _FULL


def show(rows: Sequence[Row]) -> None:
    """Prints the rows in columns; bars shrink and then vanish where there is no room, and no number does."""
    labels = [output.plain(row.label) for row in rows]
    label_width = max(map(len, labels))
    count_width = max(len(row.count) for row in rows)
    percents = ["" if row.limit is None else f"{row.percent}%" for row in rows]
    percent_width = max(map(len, percents))
    notes = [output.plain(row.note) for row in rows]
    taken = label_width + count_width + percent_width + max(map(len, notes)) + 8
    width = min(WIDEST, shutil.get_terminal_size().columns - taken - 2)
    for row, label, percent, note in zip(rows, labels, percents, notes, strict=True):
        drawn = "" if width < NARROWEST else bar(row, width) + "  "
        numbers = f"{row.count:>{count_width}}  {percent:>{percent_width}}"
        output.out(f"{label:<{label_width}}  {drawn}{numbers}  {output.paint(note, 'dim') if note else ''}".rstrip())


def bar(row: Row, width: int) -> str:
    """`[████░░]`: not empty once something is gone, not full while something is left."""
    if row.limit is None:
        return " " * (width + 2) if width < len("unlimited") else f"{'unlimited':<{width + 2}}"
    filled = width if row.percent >= _FULL else min(width - 1, -(-row.percent * width // 100))
    if row.gone and not filled:
        filled = 1
    full, empty = "█░" if _draws_blocks() else "#."
    colour = "red" if row.percent >= _FULL else "yellow" if row.percent >= _WARN else "green"
    return f"[{output.paint(full * filled, colour)}{empty * (width - filled)}]"


def _draws_blocks() -> bool:
    try:
        "█░".encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def local_time(text: str | None) -> str:
    """`2026-04-01 02:00 CEST` of an RFC 3339 instant, where this machine is; "" for none."""
    if text is None:
        return ""
    try:
        return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M %Z}".rstrip()
    except ValueError:
        return text
