"""docs/quickstart-skytale.md, typed as it stands. The other two are typed beside their products' stories."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.quickstart import typed
from tests.infra.stack import Stack


async def test_the_quick_start_of_skytale_runs_as_it_stands(system: Stack, tmp_path: Path) -> None:
    assert await typed("quickstart-skytale.md", system, tmp_path) >= 6
