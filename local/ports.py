"""Ports of local mode: is one free, and which one to take. All are below the ephemeral range (32768)."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

_LOWEST, _HIGHEST = 20_000, 32_000
_held: list[int] = []  # descriptors of locks, which live as long as this process


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """True when a server could listen there now. A socket in TIME_WAIT does not count as taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def reserve() -> int:
    """A free port that no other process using this function is given while we live.

    Outgoing connections never take it, because it is below the ephemeral range.
    """
    folder = Path(tempfile.gettempdir()) / f"tollway-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for _ in range(500):
        port = random.randint(_LOWEST, _HIGHEST)  # noqa: S311 - spreads test runs, guards nothing
        lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        if is_free(port):
            _held.append(lock)
            return port
        os.close(lock)
    raise RuntimeError(f"no free port between {_LOWEST} and {_HIGHEST} after 500 tries")
