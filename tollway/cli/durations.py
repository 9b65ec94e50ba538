"""Lengths of time as people write them: 90s, 30m, 24h, 7d."""

from __future__ import annotations

import re

from tollway.cli.errors import USAGE, CliError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> int:
    """Raises CliError (exit code 2) for anything else than a whole number and a unit."""
    found = re.fullmatch(r"(\d{1,7})([smhd])", text, re.ASCII)
    if found is None:
        raise CliError(f"not a time: {text}", code=USAGE, next_step="write 90s, 30m, 24h or 7d")
    return int(found[1]) * _UNITS[found[2]]
