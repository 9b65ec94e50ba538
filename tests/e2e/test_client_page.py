"""docs/client.md, typed as it stands beside the running system."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.infra.stack import Stack

ROOT = Path(__file__).parents[2]
AT_MOST_S = 60.0


async def test_the_pages_words_count_a_message_of_an_account_that_signed_up(system: Stack, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "client.md").read_text()
    (tmp_path / "ask.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
    (tmp_path / ".tollway").symlink_to(system.folder / "state")
    (settings,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOLLWAY_", "XDG_"))}
    environment = kept | {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / ".config"),
        "TOLLWAY_API_URL": system.gateway_url,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
    }
    email = f"{tmp_path.name}@example.com"
    story = f"set -e\ntollway signup {email} --name Ada >/dev/null 2>&1\n{settings}\npython ask.py\n"
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", story, cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complaints = await asyncio.wait_for(shell.communicate(), AT_MOST_S)
    assert (shell.returncode, complaints.decode()) == (0, "")
    assert re.match(r"counted: \[\('[a-z_]+', 1, \d+\)", said.decode())
