"""docs/lifecycle.md: its table is what the catalogs say."""

from __future__ import annotations

import re
from pathlib import Path

from services.billing.catalog import load_catalog
from services.billing.catalog.model import STATUSES

ROOT = Path(__file__).parents[3]


def test_the_table_says_of_each_status_what_the_three_catalogs_say() -> None:
    page = (ROOT / "docs" / "lifecycle.md").read_text()
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")
    ]
    names = re.findall(r"\.\./catalogs/(\w+)\.yaml", page.split("\n|---", 1)[0])
    assert names == ["skytale", "vatly", "manashiki"]
    told = {cells[0]: cells[2:] for cells in rows[2:] if len(cells) == 5 and cells[0] in {"none", *STATUSES}}
    catalogs = [load_catalog(ROOT / "catalogs" / f"{name}.yaml") for name in names]
    assert told.pop("none") == [catalog.default_tier for catalog in catalogs]
    assert told == {status: [catalog.lifecycle[status] for catalog in catalogs] for status in STATUSES}
