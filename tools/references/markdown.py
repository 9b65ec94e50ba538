"""The few forms that reference pages have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def cell(text: object) -> str:
    """A text as a cell of a table: one line, with nothing that would end the cell."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def code(text: object) -> str:
    return f"`{text}`" if str(text) else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table, or nothing when there is no row. A column in which no row has anything is left out."""
    found = [[cell(value) for value in row] for row in rows]
    kept = [at for at in range(len(heads)) if any(row[at] for row in found)]
    if not kept:
        return ""
    lines = [[heads[at] for at in kept], ["---"] * len(kept), *([row[at] for at in kept] for row in found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def anchor(heading: str) -> str:
    """The fragment that GitHub gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.replace(" ", "-")


def joined(*parts: str) -> str:
    """Blocks with an empty line between them; empty ones are left out."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"
