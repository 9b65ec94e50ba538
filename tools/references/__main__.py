"""Writes the reference pages, or with `--check` says which are stale."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.references import Undescribed, asyncapi, cli, metrics, protos, rest, settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"
_NOTE = "<!-- Made by `make docs` from {source}. Edit that, not this page. -->\n\n"


def pages() -> dict[str, str]:
    """Each page's name and text. Raises Undescribed where the code has something that nobody has described yet."""
    contract = protos.Contract.read(ROOT / "protos")
    return {
        "rest.md": _NOTE.format(source="the gateway's OpenAPI document") + rest.page(),
        "grpc.md": _NOTE.format(source="the comments in protos/") + protos.services_page(contract),
        "events.md": _NOTE.format(source="the comments in protos/") + protos.events_page(contract),
        "asyncapi.yaml": "# Made by `make docs` from the comments in protos/. Edit those, not this file.\n"
        + asyncapi.document(contract),
        "configuration.md": _NOTE.format(source="the settings classes") + settings.page(ROOT),
        "cli.md": _NOTE.format(source="the commands themselves") + cli.page(),
        "metrics.md": _NOTE.format(source="the calls in the code") + metrics.page(ROOT),
    }


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        wanted = pages()
    except Undescribed as error:
        print(f"references: {error.args[0]}", file=sys.stderr)
        return 1
    there = {path.name: path.read_text() for path in FOLDER.iterdir()} if FOLDER.exists() else {}
    stale = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
    if not arguments:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name in stale:
            if name in wanted:
                (FOLDER / name).write_text(wanted[name])
            else:
                (FOLDER / name).unlink()
        return 0
    if stale:
        print(f"references: stale: {', '.join(stale)}: run `make docs` and commit", file=sys.stderr)
        return 1
    print(f"references fresh: {', '.join(sorted(wanted))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
