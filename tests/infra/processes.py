"""Real processes of local mode for tests: each on free ports, with state of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from local import ports
from local.blocking import run_apart
from local.children import describe_exit, die_with_parent
from local.readiness import Check, every, http, smtp

READY_WITHIN_S = 120.0


def start(command: list[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A child that logs to a file and cannot outlive us."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            preexec_fn=die_with_parent(),
            process_group=0,
        )


def end(process: subprocess.Popen[bytes], within: float = 30.0) -> int:
    """Ends a child with SIGTERM, with SIGKILL if it takes too long, and gives its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


def wait_until_ready(check: Check, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when `check` says yes; fails with the log's end when the process ended or two minutes have passed."""
    deadline = time.monotonic() + READY_WITHIN_S
    while not run_apart(check()):
        if process.poll() is not None:
            pytest.fail(f"ended ({describe_exit(process.returncode)}) before it was ready:\n{tail(log)}")
        if time.monotonic() > deadline:
            pytest.fail(f"not ready after {READY_WITHIN_S:.0f} s:\n{tail(log)}")
        time.sleep(0.03)


def tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"


@dataclass
class Mailbox:
    """A running mailbox; `folder` outlives restarts."""

    folder: Path
    port: int
    smtp_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def smtp_url(self) -> str:
        return f"smtp://127.0.0.1:{self.smtp_port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "local.mailbox", "--port", str(self.port)]
        command += ["--smtp-port", str(self.smtp_port), "--state", str(self.folder)]
        log = self.folder / "mailbox.log"
        self.process = start(command, log, {})
        wait_until_ready(every(http(self.port, "/healthz"), smtp(self.smtp_port)), self.process, log)

    def kill(self) -> None:
        """Kills it with -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def messages(self, query: str = "") -> list[dict[str, object]]:
        """The mails that fit a search, newest first, as Mailpit's list shows them."""
        answer = httpx.get(f"{self.url}/api/v1/search", params={"query": query, "limit": 500})
        answer.raise_for_status()
        found: list[dict[str, object]] = answer.json()["messages"]
        return found

    def refuse(self, code: int, count: int, stage: str = "data") -> None:
        """Makes it refuse the next `count` mails with an SMTP code."""
        body = {"reject": code, "next": count, "stage": stage}
        httpx.put(f"{self.url}/_mailbox/faults", json=body).raise_for_status()

    def clear(self) -> None:
        httpx.delete(f"{self.url}/api/v1/messages").raise_for_status()


@dataclass
class Sandbox:
    """A running Stripe sandbox that delivers its webhooks to `webhook_url`."""

    url: str
    api_key: str
    webhook_secret: str
    folder: Path


@contextlib.contextmanager
def running_mailbox(folder: Path) -> Iterator[Mailbox]:
    mailbox = Mailbox(folder, ports.reserve(), ports.reserve())
    mailbox.start()
    try:
        yield mailbox
    finally:
        if mailbox.process is not None:
            end(mailbox.process)


@contextlib.contextmanager
def running_sandbox(folder: Path, webhook_url: str | None = None) -> Iterator[Sandbox]:
    port = ports.reserve()
    secret = "whsec_" + "0123456789abcdef" * 3
    command = [sys.executable, "-m", "local.stripe_sandbox", "--port", str(port), "--state", str(folder)]
    environment = {"TOLLWAY_CLOCK_FILE": str(folder / "clock-offset")}
    if webhook_url is not None:
        command += ["--webhook-url", webhook_url]
        environment["STRIPE_WEBHOOK_SECRET"] = secret
    log = folder / "sandbox.log"
    process = start(command, log, environment)
    try:
        wait_until_ready(http(port, "/healthz"), process, log)
        yield Sandbox(f"http://127.0.0.1:{port}", "sk_test_" + "0" * 24, secret, folder)
    finally:
        end(process)


@pytest.fixture(scope="module")
def mailbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailbox]:
    """A mailbox as a process of the module's own."""
    with running_mailbox(tmp_path_factory.mktemp("mailbox")) as running:
        yield running


@pytest.fixture
def mailbox(mailbox_process: Mailbox) -> Mailbox:
    """A mailbox that runs, holds nothing and refuses nothing: SMTP at `.smtp_url`, Mailpit's JSON at `.url`."""
    if mailbox_process.process is None or mailbox_process.process.poll() is not None:
        mailbox_process.start()
    mailbox_process.refuse(451, 0)
    mailbox_process.clear()
    return mailbox_process


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A Stripe sandbox as a process of its own, with nowhere to deliver webhooks to."""
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        yield running
