"""docs/seeds.md names a test for each promise; here is what keeps it from naming tests that are gone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_NAMED = re.compile(r"`((?:[\w/]+/)?test_\w+\.py)::(\w+)`")


def _tests_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return {function.name for function in functions if function.name.startswith("test_")}


def test_every_promise_in_the_table_has_tests_that_exist() -> None:
    promises = [line for line in (_ROOT / "docs/seeds.md").read_text().splitlines() if line.startswith('| "')]
    assert promises
    gone: list[str] = []
    for promise in promises:
        named = _NAMED.findall(promise)
        assert named, f"no test for: {promise}"
        for name, test in named:
            file = _ROOT / name if "/" in name else _ROOT / "tests/e2e" / name
            if not file.is_file() or test not in _tests_in(file):
                gone.append(f"{name}::{test}")
    assert gone == []
