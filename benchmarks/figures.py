"""Figures beside their aims, as `make bench` shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    part: str
    what: str
    measured: str
    aim: str = ""
    met: bool | None = None  # None: shown for comparison


def show(figures: Iterable[Figure], title: str, caption: str) -> None:
    table = Table("part", "figure", "measured", "aim", "met", title=title, caption=caption)
    last = ""
    for figure in figures:
        if last and figure.part != last:
            table.add_section()
        met = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[figure.met]
        table.add_row(figure.part if figure.part != last else "", figure.what, figure.measured, figure.aim, met)
        last = figure.part
    console = Console()
    # In a file or a pipe no row must be folded to a terminal's 80 columns.
    (console if console.is_terminal else Console(width=220)).print(table)
