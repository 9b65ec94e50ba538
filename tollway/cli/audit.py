"""audit: what was changed in the account, by whom."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from tollway.cli import output
from tollway.cli.command import current
from tollway.cli.connection import Org, connect


def audit(
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="The newest so many.")] = 50,
    org: Org = "",
) -> None:
    """Show what was changed in the account, by whom, newest first.

    Example:
      tollway audit --limit 20
    """
    with connect(org) as here:
        entries = here.pages("/audit-log", "entries", limit=limit)
    if current.as_json:
        output.out_json({"entries": entries})
        return
    if not entries:
        output.out("Nothing is in the log.")
    for entry in entries:
        output.out(f"{output.paint(entry['created_at'], 'dim')}  {output.paint(output.plain(entry['action']), 'bold')}")
        actor = entry["actor"]
        by = f"by {output.plain(actor['kind'])} {output.plain(actor['id'])}"
        output.wrapped([output.plain(entry["subject"]), *_details(entry["details"]), by])


def _details(details: dict[str, Any]) -> list[str]:
    return [
        f"{output.plain(name)}={output.plain(value if isinstance(value, str) else json.dumps(value))}"
        for name, value in details.items()
    ]
