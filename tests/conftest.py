"""Fixtures for every test, and the line that says what the tests stand on."""

from __future__ import annotations

import signal

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


def pytest_report_header(config: pytest.Config) -> str:
    return f"infrastructure: {choice.plan()}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if choice.settled.cache_info().currsize:  # some test asked for it
        terminalreporter.write_line(f"infrastructure used: {choice.settled()}")
