"""The documents point to what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.references.markdown import anchor
from tools.references.protos import Contract, events_of

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
        *(ROOT / "deploy").rglob("*.md"),
    )
    if path.name != "CHANGELOG.md"
)
_FENCED = re.compile(r"^(`{3,})[^\n]*\n.*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!\!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """The page without what it shows as code blocks."""
    return _FENCED.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The fragments that the page's headings have: a heading that comes again gets a number."""
    seen: dict[str, int] = {}
    found = set()
    for heading in re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE):
        slug = anchor(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))
        found.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    broken = []
    for target in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        there = found.exists() and found.is_relative_to(ROOT)
        if not there or (fragment and found.suffix == ".md" and fragment not in anchors(found)):
            broken.append(target)
    assert not broken


def test_links_are_found_at_all() -> None:
    assert sum(len(_LINK.findall(prose(page))) for page in PAGES) > 200


def test_no_page_of_the_references_has_two_headings_of_one_name() -> None:
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        headings = re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE)
        assert sorted(set(headings)) == sorted(headings), page.name


def test_the_page_on_events_names_every_event_of_the_contract() -> None:
    told = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "events.md").read_text(), re.MULTILINE)
    announced = [message.name for _, _, message in events_of(Contract.read(ROOT / "protos"))]
    assert sorted(told) == sorted(announced)


def test_every_decision_has_a_number_of_its_own_and_is_on_the_map() -> None:
    decisions = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [path.name[:4] for path in decisions]
    assert numbers == [f"{number:04}" for number in range(1, len(decisions) + 1)]
    for path in decisions:
        assert path.read_text().startswith(f"# {int(path.name[:4])}. ")
    linked = re.findall(r"\]\(adr/([^)]+)\)", (ROOT / "docs" / "index.md").read_text())
    assert linked == [path.name for path in decisions]


def test_every_page_is_on_the_map() -> None:
    linked = {target.partition("#")[0] for target in _LINK.findall((ROOT / "docs" / "index.md").read_text())}
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")} - {"index.md"}
    assert there <= linked
