"""Checks every catalog in `catalogs/`: `python tools/check_catalogs.py`. Each problem names file, line and field."""

from __future__ import annotations

import sys
from pathlib import Path

from services.billing.catalog import CatalogError, load_catalog

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    found = sorted((ROOT / "catalogs").glob("*.yaml"))
    wrong = 0
    for path in found:
        try:
            load_catalog(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
        except CatalogError as error:
            print(error, file=sys.stderr)
            wrong += 1
    if not found:
        print("there is no catalog in catalogs/", file=sys.stderr)
        return 1
    if not wrong:
        print(f"catalogs valid: {', '.join(path.name for path in found)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
