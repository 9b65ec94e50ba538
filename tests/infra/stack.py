"""The whole system as `make run` starts it, on free ports and a state folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from local import ports
from local.blocking import run_apart
from local.settings import DATABASES
from tests.infra.processes import end, start, tail
from tests.infra.servers import execute, running_nats

_PORTS = (
    "GATEWAY",
    "SANDBOX",
    "CLERK",
    "CLOCK",
    "MAILBOX",
    "SMTP",
    "BILLING",
    "QUOTA",
    "NOTIFY",
    "BILLING_METRICS",
    "QUOTA_METRICS",
    "NOTIFY_METRICS",
    "NATS",
    "POSTGRES",
)
# Of the person who runs the tests; the stack must not pick them up.
_NOT_OURS = (
    "STRIPE_API_KEY",
    "STRIPE_WEBHOOK_SECRET",
    "CATALOG",
    "TOLLWAY_POSTGRES_URL",
    "TOLLWAY_NATS_URL",
    "TOLLWAY_CLERK_ISSUER",
)


class Stack:
    """A system that runs. `kill` ends a part as a crash would; the supervisor brings it back.

    `parts`: postgres and nats (when they are its own), sandbox, clerk, clock, mailbox, billing, quota, notify,
    gateway.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.log = folder / "up.log"
        self.failpoints = folder / "failpoints"
        self.failpoints.mkdir(parents=True, exist_ok=True)
        self._given = {
            **{f"TOLLWAY_{name}_PORT": str(ports.reserve()) for name in _PORTS},
            "TOLLWAY_STATE": str(folder / "state"),
            "TOLLWAY_FAILPOINTS": str(self.failpoints),
            # Crash tests kill parts far more often than a healthy system would bear.
            "TOLLWAY_LOCAL_MAX_DEATHS": "1000",
            "TOLLWAY_LOCAL_LONGEST_DELAY_MS": "100",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._said_before = 0  # how much of the log is of earlier starts

    def start(self) -> None:
        """Starts everything and returns when it is ready."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Starts everything and returns at once."""
        cleared = dict.fromkeys(_NOT_OURS, "") | {f"{name}_FILE": "" for name in _NOT_OURS}
        command = [sys.executable, "-m", "local.up"]
        self._said_before = self.log.stat().st_size if self.log.exists() else 0
        self._process = start(command, self.log, {**cleared, **self._given})

    def wait_ready(self, within: float = 150.0) -> None:
        """Returns when every part is ready, after a start or after a kill; fails with the logs otherwise."""
        deadline = time.monotonic() + within
        while not self._is_ready():
            if self._process is None or self._process.poll() is not None:
                pytest.fail(f"the system ended before it was ready:\n{tail(self.log, 60)}")
            if time.monotonic() > deadline:
                pytest.fail(f"the system is not ready after {within:.0f} s:\n{tail(self.log, 60)}")
            time.sleep(0.03)

    def stop(self) -> int:
        """Stops everything as Ctrl-C does and gives the exit code."""
        return 0 if self._process is None else end(self._process)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def supervisor(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def env(self) -> dict[str, str]:
        """What every process of this system was given: ports, DSNs, keys."""
        words = shlex.split((self.folder / "state" / "env").read_text())
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self._given['TOLLWAY_GATEWAY_PORT']}"

    @property
    def sandbox_url(self) -> str:
        return f"http://127.0.0.1:{self._given['TOLLWAY_SANDBOX_PORT']}"

    @property
    def issuer_url(self) -> str:
        return f"http://127.0.0.1:{self._given['TOLLWAY_CLERK_PORT']}"

    @property
    def mailbox_url(self) -> str:
        return f"http://127.0.0.1:{self._given['TOLLWAY_MAILBOX_PORT']}"

    @property
    def nats_url(self) -> str:
        return self.env["TOLLWAY_NATS_URL"]

    @property
    def operator_token(self) -> str:
        return self.env["TOLLWAY_OPERATOR_TOKEN"]

    def address(self, service: str) -> str:
        """`host:port` of a service's gRPC."""
        return f"127.0.0.1:{self._given[f'TOLLWAY_{service.upper()}_PORT']}"

    def metrics_url(self, service: str) -> str:
        return f"http://127.0.0.1:{self._given[f'TOLLWAY_{service.upper()}_METRICS_PORT']}/metrics"

    def dsn(self, service: str) -> str:
        """`postgresql+asyncpg://…` of a service's database."""
        return self.env[f"TOLLWAY_{service.upper()}_DSN"]

    def run_facts(self) -> dict[str, Any]:
        """`run.json`: what the supervisor says of every part; empty before there is one."""
        try:
            facts: dict[str, Any] = json.loads((self.folder / "state" / "run.json").read_text())
        except FileNotFoundError:
            return {}
        return facts

    def pid(self, part: str) -> int:
        """The process of a part that runs now."""
        found = self.run_facts()["parts"][part]["pid"]
        assert found is not None, f"{part} does not run: {self.run_facts()['parts'][part]}"
        return int(found)

    def restarts(self, part: str) -> int:
        return int(self.run_facts()["parts"][part]["restarts"])

    def kill(self, part: str, signum: signal.Signals = signal.SIGKILL, *, wait: bool = True) -> None:
        """Kills a part; with `wait`, returns when the supervisor has started it anew and it is ready."""
        before = self.restarts(part)
        os.kill(self.pid(part), signum)
        if wait:
            self.wait_restarted(part, before + 1)

    def wait_restarted(self, part: str, times: int, within: float = 150.0) -> None:
        """Returns when a part has been restarted that often in all, and everything is ready."""
        deadline = time.monotonic() + within
        while self.restarts(part) < times:
            if time.monotonic() > deadline:
                pytest.fail(f"{part} was not restarted within {within:.0f} s:\n{tail(self.log, 40)}")
            time.sleep(0.02)
        self.wait_ready(within)

    def arm(self, failpoint: str, passes: int = 0) -> None:
        """Makes the process that next passes this failpoint, `passes` times later, kill itself."""
        (self.failpoints / failpoint).write_text(str(passes))

    def said(self) -> str:
        """The supervisor's own words since the last start."""
        return self.log.read_bytes()[self._said_before :].decode(errors="replace")

    def logs(self, part: str) -> str:
        path = self.folder / "state" / "logs" / f"{part}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def all_logs(self) -> str:
        """Every part's log and the supervisor's own words, for searching secrets in them."""
        folder = self.folder / "state" / "logs"
        return "\n".join(path.read_text(errors="replace") for path in (*sorted(folder.iterdir()), self.log))

    def _is_ready(self) -> bool:
        facts = self.run_facts()
        well = {"ready", "done", "outside"}
        # A supervisor that was killed leaves its last word behind.
        ours = self._process is not None and facts.get("supervisor") == self._process.pid
        return ours and bool(facts.get("ready")) and all(one["state"] in well for one in facts["parts"].values())


@contextlib.contextmanager
def running_stack(
    folder: Path, *, postgres: str | None = None, nats: str | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """A system for the length of a block. Without `postgres` or `nats` it runs its own embedded ones, which can be
    killed; with them (an admin DSN, a URL) it makes databases with names of their own there.

    One NATS serves one system at a time: both would use the stream TOLLWAY.
    """
    given = dict(env or {})
    if postgres is not None:
        given["TOLLWAY_POSTGRES_URL"] = postgres
        given["TOLLWAY_DATABASE_PREFIX"] = f"tollway_{uuid.uuid4().hex[:12]}"
    if nats is not None:
        given["TOLLWAY_NATS_URL"] = nats
    stack = Stack(folder, given)
    stack.start()
    try:
        yield stack
    finally:
        code = stack.stop()
        if postgres is not None:
            _drop_databases(postgres, given["TOLLWAY_DATABASE_PREFIX"])
    assert code == 0, f"the system did not stop cleanly (exit code {code}):\n{tail(stack.log, 60)}"


def _drop_databases(admin: str, prefix: str) -> None:
    for name in DATABASES:
        run_apart(execute(admin, f'DROP DATABASE IF EXISTS "{prefix}_{name}" WITH (FORCE)'))


@pytest.fixture(scope="session")
def stack(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole system for the session, on the session's PostgreSQL and a NATS of its own, because other tests use
    the stream TOLLWAY of the session's one. Both are containers, where Docker answers.

    Tests share it: use accounts of your own. To kill PostgreSQL or NATS, use `own_stack`.
    """
    folder = tmp_path_factory.mktemp("stack")
    with running_nats(folder) as nats, running_stack(folder, postgres=postgres, nats=nats) as running:
        yield running


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole system for a module, with PostgreSQL and NATS of its own that can be killed."""
    with running_stack(tmp_path_factory.mktemp("own-stack")) as running:
        yield running
