"""A service as a process: it can be stopped while it starts, and it ends when a part of it does."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys

import httpx
import pytest

from local import ports
from services.kit import telemetry

PROGRAM = """
import asyncio
from contextlib import asynccontextmanager
from services.kit import process, telemetry

async def fail():
    await asyncio.sleep(0.2)
    raise RuntimeError("lost sk_live_abcdefghijklmnop")

async def wait():
    await asyncio.Event().wait()

@asynccontextmanager
async def service(tasks):
    print("starting", flush=True)
    BODY
    try:
        yield
    finally:
        await tasks.stop()
        print("stopped", flush=True)

telemetry.configure_logs("probe")
process.run(service)
"""


async def run(body: str, *, signal_at: bytes | None = None) -> tuple[int, str]:
    """Runs a service whose start is `body`; sends SIGTERM when a line has `signal_at` in it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM.replace("BODY", body), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    output = b""
    while line := await process.stdout.readline():
        output += line
        if signal_at and signal_at in line:
            process.send_signal(signal.SIGTERM)
    return await process.wait(), output.decode()


async def test_sigterm_stops_a_service_in_order() -> None:
    code, output = await run("tasks.start(wait(), 'wait')", signal_at=b"ready")
    assert code == 0, output
    assert output.splitlines()[-1] == "stopped"


async def test_sigterm_ends_a_service_that_is_still_waiting_to_start() -> None:
    code, output = await run("await wait()", signal_at=b"starting")
    assert code == 0, output


async def test_a_service_ends_when_one_of_its_loops_does() -> None:
    code, output = await run("tasks.start(wait(), 'wait'); tasks.start(fail(), 'relay')")
    assert code == 1
    assert "stopped" in output
    [line] = [json.loads(line) for line in output.splitlines() if "task.ended" in line]
    assert line["task"] == "relay"
    assert "RuntimeError: lost sk_live_[redacted]" in line["exception"]


@pytest.mark.parametrize("where", ["raise KeyError('whsec_abcdefghijklmnop')", "await fail()"])
async def test_a_start_that_fails_is_logged_without_secrets(where: str) -> None:
    code, output = await run(where)
    assert code == 70
    assert "process.failed" in output
    assert "abcdefghijklmnop" not in output


async def test_a_start_that_finds_its_configuration_wrong_ends_with_a_line_and_78() -> None:
    code, output = await run("from services.kit.config import ConfigurationError; raise ConfigurationError('X: no')")
    assert code == 78
    assert "configuration: X: no" in output.splitlines()
    assert "Traceback" not in output


async def test_metrics_are_served_until_they_are_stopped() -> None:
    port = ports.reserve()
    stop = telemetry.serve_metrics("127.0.0.1", port)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/metrics")
        assert answer.status_code == 200
        assert "process_resident_memory_bytes" in answer.text
        stop()
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{port}/metrics")
