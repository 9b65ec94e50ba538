"""docs/operating.md and the alerts: about metrics and alerts that exist."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tools.references.metrics import measured

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "operating.md").read_text()
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
_STATES = ("pending", "sending", "unknown", "dead")


def series() -> set[str]:
    """The names that a scrape can show."""
    found = set()
    for name, metric in measured(ROOT).items():
        ends = ("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",)
        names = [name.replace("{state}", state) for state in _STATES] if "{state}" in name else [name]
        found |= {each + end for each in names for end in ends}
    return found


def test_every_alert_is_about_metrics_and_labels_that_the_code_has() -> None:
    known, labels = series(), {label for metric in measured(ROOT).values() for label in metric.labels}
    for rule in RULES:
        named = set(re.findall(r"tollway_\w+", rule["expr"]))
        assert named <= known, rule["alert"]
        assert named or rule["expr"].startswith("up"), rule["alert"]
        compared = set(re.findall(r"(\w+)=~?\"", rule["expr"]))
        grouped = {name.strip() for by in re.findall(r"by \(([^)]*)\)", rule["expr"]) for name in by.split(",")}
        assert compared | grouped <= labels | {"job", "le"}, rule["alert"]


def test_every_alert_is_explained_and_no_other() -> None:
    explained = re.findall(r"^\| `(Tollway\w+)` \|", PAGE, re.MULTILINE)
    assert explained == [rule["alert"] for rule in RULES]


def test_every_alert_of_billing_is_explained() -> None:
    raised = set()
    for path in (ROOT / "services" / "billing").rglob("*.py"):
        raised |= set(re.findall(r"(?:alerts\.append\(|_alert\(|alert=)\"(\w+)\"", path.read_text()))
    raised |= {"refund_at_stripe", "dispute"}  # chosen in one expression
    table = PAGE.split("| `alert` |", 1)[1].split("\n\n", 1)[0]
    assert raised == set(
        re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line[1:]))
    )
