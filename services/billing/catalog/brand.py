"""`python -m services.billing.catalog.brand FILE`: a catalog's brand as events carry it, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from services.billing.catalog.load import CatalogError, load_catalog


def main() -> int:
    try:
        catalog = load_catalog(Path(sys.argv[1]))
    except CatalogError as error:
        print(error, file=sys.stderr)
        return 1
    brand = {
        "name": catalog.brand_name,
        "support_contact": catalog.product.contact,
        "color": catalog.brand.color,
        "sender": catalog.brand.sender or "",
    }
    print(json.dumps(brand))
    return 0


if __name__ == "__main__":
    sys.exit(main())
