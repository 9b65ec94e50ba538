"""What the measurements share: results, a PostgreSQL of their own, processes, a table."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from local import ports
from local import postgres as local_postgres
from local.blocking import run_apart


@dataclass
class Result:
    """One run at a constant number of calls in flight."""

    calls: int
    seconds: float
    failures: int
    latencies: list[float] = field(repr=False)
    answered: int = 0  # with those before and after the measured time
    server_cpu_s: float = 0.0  # what the server's process used for all that were answered

    @property
    def rate(self) -> float:
        """Answered calls per second."""
        return self.calls / self.seconds

    def percentile_ms(self, percent: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000 if ordered else 0.0


@contextlib.contextmanager
def postgres(*databases: str) -> Iterator[list[str]]:
    """A fresh PostgreSQL with local mode's settings (fsync on) for the length of a block; the databases' DSNs."""
    with tempfile.TemporaryDirectory(prefix="tollway-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL may have to run as another user
        with local_postgres.running(folder, ports.reserve(), "bench") as admin:
            run_apart(local_postgres.create_databases(admin, databases))
            yield [local_postgres.service_dsn(admin, database) for database in databases]


@contextlib.contextmanager
def process(*module: str, **environment: str) -> Iterator[psutil.Process]:
    """`python -m module …` for the length of a block, with only these TOLLWAY settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOLLWAY_")}
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-m", *module], env=inherited | environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield psutil.Process(child.pid)
        finally:
            ended = child.poll()
            child.terminate()
            try:
                child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if ended is not None:
                log.seek(0)
                said = log.read().decode(errors="replace")[-2000:]
                print(f"{' '.join(module)} ended with {ended}: {said}", file=sys.stderr)


async def listening(port: int, *, timeout_s: float = 30) -> None:
    """Returns when something accepts connections on the port."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)  # nothing to await: the process opens the port when it is ready
            else:
                writer.close()
                return


def table(title: str, rows: Iterable[tuple[str, ...]]) -> str:
    """Rows as aligned columns; the first row is the heading."""
    lines = list(rows)
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    shown = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in lines
    ]
    return "\n".join((title, "-" * len(shown[0]), shown[0], "-" * len(shown[0]), *shown[1:]))
