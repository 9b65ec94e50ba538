"""docs/identity.md: its list of the audit log's actions is whole."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
_ACTION = re.compile(r"[a-z_]+\.[a-z_]+")


def recorded() -> set[str]:
    """The actions that billing's calls of `record` name."""
    found = set()
    for path in (ROOT / "services" / "billing").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            literals = (node for argument in call.args for node in ast.walk(argument)) if name == "record" else ()
            found |= {
                node.value
                for node in literals
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and _ACTION.fullmatch(node.value)
            }
    return found


def test_every_action_of_the_audit_log_is_told_and_no_other() -> None:
    table = (ROOT / "docs" / "identity.md").read_text().split("| action | |", 1)[1].split("\n\n", 1)[0]
    told = {
        name
        for line in table.splitlines()
        for name in re.findall(r"`([^`]+)`", line.split("|")[1] if "|" in line else "")
    }
    assert told == recorded()
