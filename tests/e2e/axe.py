"""axe-core on a page: what a screen reader's user would stumble over. From npm; skipped with a reason where npm does
not answer. AXE names a copy of axe.min.js to use instead."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

_PACKAGE = "axe-core@4.11.0"
_SERIOUS = {"serious", "critical"}


@functools.cache
def _fetched() -> str:
    """The script, or why there is none, after `!`."""
    if given := os.environ.get("AXE"):
        return Path(given).read_text()
    npm = shutil.which("npm")
    if npm is None:
        return "!npm is not installed"
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", _PACKAGE, "--silent", "--pack-destination", folder]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=90, cwd=folder)
        except (subprocess.SubprocessError, OSError) as error:
            return f"!npm does not give {_PACKAGE}: {type(error).__name__}"
        (packed,) = Path(folder).glob("*.tgz")
        with tarfile.open(packed) as archive:
            found = archive.extractfile("package/axe.min.js")
            assert found is not None
            return found.read().decode()


def script() -> str:
    """axe's text; skips the test without one."""
    found = _fetched()
    if found.startswith("!"):
        pytest.skip(f"no axe-core: {found[1:]}")
    return found


async def assert_accessible(page: Page, name: str) -> None:
    """Nothing serious or critical by WCAG 2.2 A and AA, in light and in dark."""
    text = script()
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        await page.evaluate(text)
        found: dict[str, Any] = await page.evaluate("axe.run({resultTypes: ['violations']})")
        serious = [
            f"{each['id']}: {node['html']} ({node['failureSummary']})"
            for each in found["violations"]
            if each["impact"] in _SERIOUS
            for node in each["nodes"]
        ]
        assert serious == [], f"{name} in {scheme}: " + "\n".join(serious)
    await page.emulate_media(color_scheme="light")
