"""docs/catalog.md: its catalog loads, its tables have every field, and its errors are those that are told."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from services.billing.catalog import CatalogError, load_catalog, model

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "catalog.md").read_text()
(EXAMPLE,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
_SECTIONS: dict[str, type[BaseModel]] = {
    "The file": model.Catalog,
    "Product": model.Product,
    "Brand": model.Brand,
    "Meters": model.Meter,
    "Limits": model.Limit,
    "Refusals": model.Refusal,
    "Tiers": model.Tier,
    "Prices": model.Price,
    "Overage": model.Overage,
    "Key kinds": model.KeyKind,
    "Policies": model.Policies,
}
MISTAKES = re.findall(
    r"^\| `([\w.]+: [^|]+)` \| `([^|]+)` \|$", PAGE.split("## What is said when it is wrong")[1], re.MULTILINE
)


def section(heading: str) -> str:
    return re.split(r"\n#+ ", PAGE.split(f"# {heading}\n", 1)[1], maxsplit=1)[0]


def rows(text: str) -> list[tuple[str, str]]:
    """Each row's field, and what holds unless it is given."""
    found = []
    for line in text.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            found.append((cells[0].strip("`"), cells[-1]))
    return found


def test_the_pages_catalog_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(EXAMPLE)
    assert list(load_catalog(path).tiers) == ["free", "pro"]


@pytest.mark.parametrize("heading", _SECTIONS)
def test_every_field_is_told_in_the_models_order_with_its_default(heading: str) -> None:
    part = _SECTIONS[heading]
    told = rows(section(heading))
    if part is model.Policies:
        fields = list(part.model_fields)
        told, refund = told[: len(fields)], told[len(fields) :]
        assert [name for name, _ in refund] == list(model.Refund.model_fields)
    assert [name for name, _ in told] == list(part.model_fields)
    for name, otherwise in told:
        field = part.model_fields[name]
        assert (otherwise == "required") == field.is_required(), name
        if isinstance(field.default, (bool, int)) or (isinstance(field.default, str) and field.default):
            shown = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
            assert otherwise.strip('`"') == shown, name


@pytest.mark.parametrize(("written", "said"), MISTAKES)
def test_a_mistake_is_told_as_the_page_says(written: str, said: str, tmp_path: Path) -> None:
    where, _, value = written.partition(": ")
    data = copy.deepcopy(yaml.safe_load(EXAMPLE))
    *parents, last = where.split(".")
    place: dict[str, Any] = data
    for name in parents:
        place = place[name]
    place[last] = yaml.safe_load(value)
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
    with pytest.raises(CatalogError) as refused:
        load_catalog(path)
    assert re.fullmatch(rf"{re.escape(str(path))}:\d+: {re.escape(said)}.*", refused.value.problems[0])


def test_mistakes_are_found_at_all() -> None:
    assert len(MISTAKES) >= 20
