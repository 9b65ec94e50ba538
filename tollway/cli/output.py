"""What commands print: answers on stdout, everything else on stderr. Colour only where a person looks at it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import IO, Any

from tollway.cli.errors import CliError

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def coloured(stream: IO[str]) -> bool:
    """https://no-color.org: a NO_COLOR that is not empty means none, whatever the terminal can do."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, *styles: str, stream: IO[str] | None = None) -> str:
    if not text or not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{';'.join(_STYLES[style] for style in styles)}m{text}\x1b[0m"


def plain(value: object) -> str:
    """Text from elsewhere on one line, without what could steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in str(value))


def out(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def prose(text: str, *, indent: str = "") -> None:
    """A sentence on standard output; on a terminal it is broken between words, and goes on indented."""
    out(_broken(text, indent, sys.stdout))


def aside(text: str) -> None:
    """As prose, for the person."""
    note(_broken(text, "", sys.stderr))


def _broken(text: str, indent: str, stream: IO[str]) -> str:
    """The text behind the indent; on a terminal in lines, of which each is indented."""
    if not stream.isatty() or len(indent) + len(text) <= columns():
        return indent + text
    import textwrap

    lines = textwrap.wrap(text, columns() - len(indent), break_long_words=False, break_on_hyphens=False)
    return indent + f"\n{indent}".join(lines)


def note(text: str) -> None:
    """For the person, not for the pipe."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def out_json(value: Any) -> None:
    out(json.dumps(value, indent=2, ensure_ascii=False))


def show_error(error: CliError, *, as_json: bool) -> None:
    if as_json:
        note(json.dumps({"error": error.document()}, ensure_ascii=False))
        return
    first, *rest = error.message.split("\n")
    for lead, styles, text in [
        ("error: ", ("red", "bold"), first),
        *(("  ", (), line.strip()) for line in rest),
        *([("next:  ", ("dim",), error.next_step)] if error.next_step else []),
    ]:
        begun = _broken(plain(text), " " * len(lead), sys.stderr)
        note(paint(lead, *styles, stream=sys.stderr) + begun[len(lead) :])


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> None:
    """Columns with two spaces between them; those in `right` hold numbers. On a terminal that is too narrow for them
    each row is a paragraph instead."""
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headings), *cells]) for i in range(len(headings))]
    if cells and sys.stdout.isatty() and sum(widths) + 2 * (len(widths) - 1) > columns():
        _paragraphs(headings, cells)
        return

    def aligned(row: Sequence[str]) -> str:
        columns = enumerate(zip(row, widths, strict=True))
        return "  ".join(cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in columns).rstrip()

    out(paint(aligned(headings), "bold"))
    for row in cells:
        out(aligned(row))


def _paragraphs(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """The first cell that names something, and the others below it with their headings."""
    first = next((place for place, heading in enumerate(headings) if heading), 0)
    for row in cells:
        out(paint(" ".join(filter(None, row[: first + 1])), "bold"))
        rest = zip(headings[first + 1 :], row[first + 1 :], strict=True)
        facts = [f"{heading.lower()} {cell}".strip() for heading, cell in rest if cell and cell != "-"]
        wrapped(facts)


def wrapped(facts: Sequence[str]) -> None:
    """Facts side by side, indented; one that does not fit begins a new line, and none is cut."""
    line = ""
    for fact in facts:
        if line and len(line) + 2 + len(fact) > columns():
            out(line)
            line = ""
        line += f"  {fact}"
    if line:
        out(line)


def columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def number(value: int | None, absent: str = "unlimited") -> str:
    return absent if value is None else f"{value:,}"
