"""The examples, run as their own words say, in front of a real quota."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from local import ports
from local.readiness import Check
from tests.infra import processes
from tests.integration.quota import world

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def quota(tmp_path: Path, quota_database: str) -> AsyncIterator[world.Process]:
    """A quota that knows one account with two messages left."""
    async with world.tables(quota_database) as engine:
        await world.put(engine, world.entitlements("acct_demo", limit=2))
    with world.process(tmp_path, quota_database) as process:
        async with world.client(process.address):  # returns when it is ready: nobody's deadline pays for its start
            yield process


def tcp(port: int) -> Check:
    """Somebody accepts connections."""

    async def check() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    return check


@contextlib.contextmanager
def running(command: list[str], folder: Path, quota: str, ready: Check) -> Iterator[subprocess.Popen[bytes]]:
    log = folder / "example.log"
    environment = {
        "TOLLWAY_QUOTA_ADDR": quota,
        "TOLLWAY_RPC_TOKEN": "",
        "DEMO_ACCOUNT": "acct_demo",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
    }
    child = processes.start(command, log, environment)
    try:
        processes.wait_until_ready(ready, child, log)
        yield child
    finally:
        code = processes.end(child)
    said = log.read_text()
    assert code in (0, -signal.SIGTERM), said
    assert "Traceback" not in said


async def test_the_asgi_example_sells_two_messages_and_refuses_the_third(
    tmp_path: Path, quota_database: str, quota: world.Process
) -> None:
    port = ports.reserve()
    command = [sys.executable, "-m", "uvicorn", "examples.asgi_service:app", "--port", str(port)]
    with running(command, tmp_path, quota.address, tcp(port)):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            assert (await client.get("/")).status_code == 401
            key = {"X-Api-Key": "demo-key"}
            for left in (1, 0):
                sold = await client.get("/", headers=key)
                assert (sold.status_code, sold.text) == (200, "Sent.\n")
                assert sold.headers["ratelimit-policy"] == '"messages";q=2'
                assert re.fullmatch(rf'"messages";r={left};t=\d+', sold.headers["ratelimit"])
            refused = await client.get("/", headers=key)
            assert refused.status_code == 402
            assert refused.headers["content-type"] == "application/problem+json"
            assert re.fullmatch(r'"messages";r=0;t=\d+', refused.headers["ratelimit"])
            document = refused.json()
            assert (document["reason"], document["checkoutUrl"]) == (
                "message_quota_exceeded",
                "https://pay.example/billing",
            )
            assert (document["used"], document["limit"], document["remaining"]) == (2, 2, 0)
            quota.child.kill()
            away = await client.get("/", headers=key)
            assert (away.status_code, away.headers["retry-after"]) == (503, "1")
            with world.process(tmp_path, quota_database, port=quota.port) as again:
                async with world.client(again.address):
                    assert (await client.get("/", headers=key)).status_code == 402


async def test_the_grpc_example_sells_two_messages_and_refuses_the_third(tmp_path: Path, quota: world.Process) -> None:
    port = ports.reserve()
    command = [sys.executable, "examples/grpc_service.py", f"127.0.0.1:{port}"]
    with running(command, tmp_path, quota.address, tcp(port)):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            send = channel.unary_unary("/example.Messages/Send", StringValue.SerializeToString, StringValue.FromString)
            key = (("x-api-key", "demo-key"),)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await send(StringValue(value="hi"), timeout=30)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            for _ in range(2):
                assert (await send(StringValue(value="hi"), timeout=30, metadata=key)).value == "sent: hi"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await send(StringValue(value="hi"), timeout=30, metadata=key)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert caught.value.details() == "The month's messages are used up."
            quota.child.kill()
            await asyncio.to_thread(quota.child.wait)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await send(StringValue(value="hi"), timeout=30, metadata=key)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_pages_lease_counts_what_was_used_and_only_once(tmp_path: Path, quota_database: str) -> None:
    async with world.tables(quota_database) as engine:
        await world.put(engine, world.entitlements("acct_demo", limit=100))
    page = (ROOT / "docs" / "client.md").read_text()
    (program,) = (each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "quota.lease(" in each)
    with world.process(tmp_path, quota_database) as process:
        async with world.client(process.address):
            done = await asyncio.to_thread(_run, program, process.address)
            assert (done.returncode, done.stderr, done.stdout) == (0, "", "used: 42\n")
            # The id is spent: the first answer comes again, and its lease has ended.
            again = await asyncio.to_thread(_run, program, process.address)
            assert "LEASE_NOT_FOUND" in again.stderr or "NotFound" in again.stderr
            refused = await asyncio.to_thread(_run, program.replace("job-1", "job-2"), process.address)
            assert (refused.stderr, refused.stdout) == ("", "refused: message_quota_exceeded\n")


def _run(program: str, address: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TOLLWAY_QUOTA_ADDR": address, "TOLLWAY_RPC_TOKEN": "", "ACCOUNT": "acct_demo"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


async def test_the_pages_first_program_tells_what_was_counted_and_what_was_refused(
    quota: world.Process,
) -> None:
    page = (ROOT / "docs" / "client.md").read_text()
    program = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    environment = {**os.environ, "TOLLWAY_QUOTA_ADDR": quota.address, "TOLLWAY_RPC_TOKEN": "", "ACCOUNT": "acct_demo"}
    said = []
    for _ in range(3):
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "error", "-c", program],
            env=environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        said.append(done.stdout)
    assert said[:2] == ["counted: [('messages', 1, 2)]\n", "counted: [('messages', 2, 2)]\n"]
    assert said[2].startswith("refused: 402 message_quota_exceeded The month's messages are used up.")
