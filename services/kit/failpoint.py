"""Named places at which a test can kill the process, as a crash would.

A failpoint is armed by a file of its name in the folder that `TOLLWAY_FAILPOINTS` names; the file's number says how
many passes it lets by first (empty: none). It disarms itself before it kills, so the restarted process goes on.
In production the folder is not set and a pass costs one comparison.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

_folder = Path(os.environ["TOLLWAY_FAILPOINTS"]) if os.environ.get("TOLLWAY_FAILPOINTS") else None


def failpoint(name: str) -> None:
    """Kills this process with SIGKILL if the failpoint is armed and due."""
    if _folder is None:
        return
    armed = _folder / name
    try:
        passes = int(armed.read_text() or 0)
    except FileNotFoundError:
        return
    if passes > 0:
        armed.write_text(str(passes - 1))
        return
    armed.unlink(missing_ok=True)
    os.kill(os.getpid(), signal.SIGKILL)
