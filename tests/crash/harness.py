"""Kills and restarts: PostgreSQL, NATS, and programs with failpoints, each as a real process that we own.

    with Postgres(folder) as postgres, Nats(folder) as nats:
        program = Program("tests.crash.producer", {"DSN": postgres.database("x")}, folder)
        program.arm("outbox.published")   # it kills itself there, once
        program.start()
        await eventually(program.is_dead)

The servers come from the embedded wheels even where Docker answers: a test that kills must own the process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from local import nats as local_nats
from local import ports
from local import postgres as local_postgres
from local.blocking import run_apart
from local.children import die_with_parent


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], *, within_s: float = 30.0, claim: str = ""
) -> None:
    """Asks until the condition holds. Raises AssertionError with `claim` when it still does not after `within_s`."""
    deadline = time.monotonic() + within_s
    while True:
        answer = condition()
        if answer if isinstance(answer, bool) else await answer:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {within_s} s: {claim or condition}")
        await asyncio.sleep(0.02)  # the condition is a question: there is nothing to await


def _end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Owned:
    """A process that can be started again after its end."""

    process: subprocess.Popen[bytes] | None = None
    _stop_signal = signal.SIGTERM

    def start(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        """The process ends without a chance to do anything."""
        if self.process is not None:
            _end(self.process, signal.SIGKILL)

    def stop(self) -> int:
        """The process is asked to end; returns its exit code."""
        assert self.process is not None
        _end(self.process, self._stop_signal)
        return self.process.returncode

    def is_dead(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Postgres(_Owned):
    """A server of our own. What it has committed survives `kill`, as it would after a crash of the process."""

    _stop_signal = local_postgres.STOP_SIGNAL

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = ports.reserve()
        self._password = uuid.uuid4().hex
        self.admin = local_postgres.admin_dsn(self._port, self._password)

    def start(self) -> None:
        # fsync guards against a power cut, which nobody plays here; commits stay synchronous.
        self.process = local_postgres.start(
            self._folder / "postgres",
            self._port,
            self._password,
            self._folder / "postgres.log",
            settings={"fsync": "off", "shared_buffers": "32MB"},
        )
        _wait_until(lambda: run_apart(local_postgres.is_ready(self.admin)), self.process, "PostgreSQL")

    def kill(self) -> None:
        # The immediate shutdown: no checkpoint, no goodbye, recovery at the next start. SIGKILL for the postmaster
        # alone would leave its children behind.
        if self.process is not None:
            _end(self.process, local_postgres.ORPHAN_SIGNAL)

    def database(self, name: str) -> str:
        """Creates a database; returns its DSN for SQLAlchemy."""
        run_apart(local_postgres.create_databases(self.admin, [name]))
        return local_postgres.service_dsn(self.admin, name)


class Nats(_Owned):
    _stop_signal = local_nats.STOP_SIGNAL

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = ports.reserve()
        self.url = f"nats://127.0.0.1:{self._port}"

    def start(self) -> None:
        self.process = local_nats.start(self._folder / "nats", self._port, self._folder / "nats.log")
        _wait_until(lambda: run_apart(local_nats.is_ready(self.url)), self.process, "nats-server")

    def lose_storage(self) -> None:
        """Only while it is dead: every stream, consumer and message is gone."""
        assert self.is_dead()
        shutil.rmtree(self._folder / "nats")


class Program(_Owned):
    """`python -m module`, with failpoints and a log of its own."""

    def __init__(self, module: str, environment: Mapping[str, str], folder: Path) -> None:
        self._module = module
        name = module.rsplit(".", 1)[-1]
        self.log = folder / f"{name}.log"
        self._failpoints = folder / f"{name}.failpoints"
        self._failpoints.mkdir(exist_ok=True)
        self._environment = {**os.environ, **environment, "TOLLWAY_FAILPOINTS": str(self._failpoints)}

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(),
            )

    def arm(self, failpoint: str, *, passes: int = 0) -> None:
        """The process kills itself at this failpoint, once, after letting `passes` go by."""
        (self._failpoints / failpoint).write_text(str(passes))

    def has_fired(self, failpoint: str) -> bool:
        """It died there: the failpoint is disarmed and the process is gone by SIGKILL."""
        return (
            not (self._failpoints / failpoint).exists()
            and self.process is not None
            and self.process.poll() == -signal.SIGKILL
        )

    def said(self, text: str) -> bool:
        return self.log.exists() and text in self.log.read_text()


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], name: str) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert process.poll() is None, f"{name} ended with {process.returncode}"
        assert time.monotonic() < deadline, f"{name} is not ready after 30 s"
        time.sleep(0.02)
