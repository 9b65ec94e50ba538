"""Bars of usage: never a lie about empty and full, never wider than the terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.cli import bars
from tollway.cli.bars import Row, bar, local_time, show

ROWS = [
    Row("live_downloads", 312, None, "resets 2026-07-01 00:00 UTC"),
    Row("  your cap", 312, 1000, "resets 2026-07-01 00:00 UTC"),
    Row("  at once", 25, 25),
]


@given(st.integers(0, 2**62), st.integers(0, 2**62), st.integers(bars.NARROWEST, bars.WIDEST))
def test_a_bar_is_empty_only_when_nothing_is_used_and_full_only_when_nothing_is_left(
    used: int, limit: int, width: int
) -> None:
    drawn = bar(Row("x", used, limit), width)
    found = re.fullmatch(r"\[([█#]*)([░.]*)\]", drawn)
    assert found
    assert len(found[1]) + len(found[2]) == width
    if limit:
        assert (not found[1]) == (used == 0)
    assert (not found[2]) == (used >= limit)


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_lines_fit_the_terminal_and_keep_their_columns(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    show(ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= max(columns, 67)
    assert ("[" in lines[1]) == (columns >= 80)
    assert lines[1].index("312 / 1,000") + len("312 / 1,000") == lines[2].index("25 / 25") + len("25 / 25")
    assert "unlimited" in lines[0] or columns == 60


def test_no_number_is_lost_where_no_bar_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    show(ROWS)
    said = capsys.readouterr().out
    assert "312 / 1,000   31%  resets 2026-07-01 00:00 UTC" in said
    assert "[" not in said


def test_times_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert local_time("2026-07-01T00:00:00Z") == "2026-07-01 09:00 JST"
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (local_time(None), local_time("soon")) == ("", "soon")
