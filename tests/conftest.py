"""Fixtures for every test, and the line that says what the tests stand on."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.infra import choice
from tests.infra.processes import mailbox, mailbox_process, sandbox
from tests.infra.servers import (
    billing_database,
    database,
    nats_url,
    notify_database,
    postgres,
    quota_database,
    templates,
)
from tests.infra.stack import own_stack, stack

__all__ = [
    "billing_database",
    "database",
    "mailbox",
    "mailbox_process",
    "nats_url",
    "notify_database",
    "own_stack",
    "postgres",
    "quota_database",
    "sandbox",
    "stack",
    "templates",
]


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell that starts us in the background makes us, and every process that we start, deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _has_room_and_runs_programs(folder: Path) -> bool:
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        return False
    return shutil.disk_usage(folder).free > 4 * 1024**3 and not os.statvfs(folder).f_flag & os.ST_NOEXEC


_MEMORY = Path("/dev/shm")
if "PYTEST_DEBUG_TEMPROOT" not in os.environ and _has_room_and_runs_programs(_MEMORY):
    # A database is 300 files, and most tests have one of their own: a disk takes twice as long over them as we do.
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(_MEMORY)


def pytest_report_header(config: pytest.Config) -> str:
    files = os.environ.get("PYTEST_DEBUG_TEMPROOT", "the temporary folder")
    return f"infrastructure: {choice.plan()}; files in {files}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if choice.settled.cache_info().currsize:  # some test asked for it
        terminalreporter.write_line(f"infrastructure used: {choice.settled()}")
