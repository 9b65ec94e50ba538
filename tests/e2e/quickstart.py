"""Types a quick start's shell lines beside a running system, and compares what they print with what the page shows."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import uuid
from pathlib import Path

from tests.infra.stack import Stack

ROOT = Path(__file__).parents[2]
AT_MOST_S = 150.0
_BLOCK = re.compile(r"```(sh|text)\n(.*?)```", re.DOTALL)
_END = "\x1e"


def blocks(page: str) -> list[tuple[str, str]]:
    """The page's blocks of shell lines, each with what it prints; empty where the page shows nothing."""
    found: list[tuple[str, str]] = []
    for kind, text in _BLOCK.findall((ROOT / "docs" / page).read_text()):
        if kind == "sh":
            found.append((text, ""))
        else:
            found[-1] = (found[-1][0], text)
    return [each for each in found if "make run" not in each[0]]  # that is the system which runs already


def _here(lines: str, stack: Stack, org: str) -> str:
    """The lines with the ports of this system instead of the usual ones, and an organization that no other test has."""
    for port, url in (("8080", stack.gateway_url), ("12111", stack.sandbox_url), ("8025", stack.mailbox_url)):
        lines = lines.replace(f"http://127.0.0.1:{port}", url)
    return lines.replace("$PWD/.venv/bin", str(Path(sys.executable).parent)).replace("--org acme", f"--org {org}")


def _looks_like(shown: str, printed: str) -> bool:
    """`…` stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in shown.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


async def typed(page: str, stack: Stack, home: Path) -> int:
    """Runs the page from its first line to its last in one shell. Returns how many outputs were compared."""
    (home / ".tollway").symlink_to(stack.folder / "state")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOLLWAY_", "XDG_", "BROWSER"))}
    environment = kept | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "TOLLWAY_API_URL": stack.gateway_url,
        "TOLLWAY_NATS_URL": stack.nats_url,
        "TOLLWAY_CLERK_ISSUER": stack.issuer_url,
        "TOLLWAY_CLOCK_PORT": stack.env["TOLLWAY_CLOCK_PORT"],
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
        "no_proxy": "127.0.0.1",
    }
    written, org = blocks(page), f"acme_{uuid.uuid4().hex[:12]}"
    story = "set -eu\n" + f"\nprintf '{_END}'\n".join(_here(lines, stack, org) for lines, _ in written)
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", story, cwd=home, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        said, complaints = await asyncio.wait_for(shell.communicate(), AT_MOST_S)
    finally:
        if shell.returncode is None:
            shell.kill()
    told = f"{said.decode()}\n{complaints.decode()}"
    assert shell.returncode == 0, told
    printed = said.decode().split(_END)
    assert len(printed) == len(written), told
    compared = 0
    for (lines, shown), really in zip(written, printed, strict=True):
        if shown:
            assert _looks_like(shown, really), f"{lines}\nprints\n{really}\nand the page shows\n{shown}"
            compared += 1
    return compared
