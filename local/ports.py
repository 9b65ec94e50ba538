"""Ports of local mode: is one free, and which one to take. All are below the ephemeral range (32768)."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

_LOWEST, _HIGHEST = 20_000, 32_000
_reserved: set[int] = set()
_registry: int | None = None  # a descriptor whose locked bytes are the ports that processes hold


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
    global _registry
    if _registry is None:
        path = Path(tempfile.gettempdir()) / f"tollway-ports-{os.getuid()}.lock"
        _registry = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    for _ in range(500):
        port = random.randint(_LOWEST, _HIGHEST)  # noqa: S311 - spreads test runs, guards nothing
        if port in _reserved:
            continue  # a process does not exclude itself from what it has locked
        try:
            fcntl.lockf(_registry, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            continue
        if is_free(port):
            _reserved.add(port)
            return port
        fcntl.lockf(_registry, fcntl.LOCK_UN, 1, port)
    raise RuntimeError(f"no free port between {_LOWEST} and {_HIGHEST} after 500 tries")
