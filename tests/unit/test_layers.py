"""Each import rule of pyproject.toml notices the import that it forbids."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def lint(folder: Path) -> str:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "rule"),
    [
        ("services/notify/errors.py", "import services.billing.errors", "services never import each other"),
        ("services/notify/domain.py", "import sqlalchemy", "the domain does no I/O and knows no transport"),
        ("services/kit/ids.py", "import services.billing.errors", "the kit knows no service"),
        ("gateway/tokens.py", "import services.kit.database", "the gateway imports only the kit and the contract"),
        (
            "tollway/cli/__init__.py",
            "import services.kit.ids",
            "what others install imports nothing of the application",
        ),
        ("services/notify/errors.py", "import local.ports", "services know neither the gateway nor local mode"),
        ("local/ports.py", "import services.notify.errors", "local mode runs the parts and imports none of them"),
    ],
)
def test_a_forbidden_import_breaks_its_rule(tmp_path: Path, file: str, line: str, rule: str) -> None:
    for name in ("services", "gateway", "local", "tollway"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as source:
        source.write(f"\n{line}\n")
    broken = [said for said in lint(tmp_path).splitlines() if "BROKEN" in said]
    assert any(said.startswith(rule) for said in broken), broken
