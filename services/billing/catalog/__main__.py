"""`python -m services.billing.catalog FILE…`: are these catalogs valid? What is wrong by file, line and field."""

from __future__ import annotations

import sys
from pathlib import Path

from services.billing.catalog.load import CatalogError, load_catalog


def main() -> int:
    if not sys.argv[1:]:
        print("which file? python -m services.billing.catalog FILE…", file=sys.stderr)
        return 2
    wrong = 0
    for name in sys.argv[1:]:
        try:
            catalog = load_catalog(Path(name))
        except CatalogError as error:
            print(error, file=sys.stderr)
            wrong = 1
        else:
            print(f"{name}: {catalog.product.name}, {len(catalog.tiers)} tiers: {', '.join(catalog.tiers)}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
