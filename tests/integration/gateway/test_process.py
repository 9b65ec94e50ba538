"""The gateway as a process: it starts alone, says what is wrong, and drains when told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from local import ports
from services.kit.rpc import Server
from tests.integration.gateway.conftest import ISSUER, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("TOLLWAY_", "STRIPE_", "CATALOG"))}


@asynccontextmanager
async def process(**env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.main",
        env={**CLEAN, "TOLLWAY_LOCAL": "1", **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


def address(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


async def until_ready(child: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(30):
        while b'"ready"' not in await child.stdout.readline():
            assert not child.stdout.at_eof(), (await child.stderr.read()).decode()


async def test_it_is_ready_without_the_services_and_sigterm_ends_it_with_0() -> None:
    port = ports.reserve()
    async with process(TOLLWAY_GATEWAY_PORT=str(port), TOLLWAY_BILLING_ADDR="127.0.0.1:1") as child:
        await until_ready(child)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/readyz")).status_code == 503
        child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await child.wait() == 0


async def test_a_request_under_way_is_answered_before_it_stops(stack: Stack) -> None:
    port = ports.reserve()
    account_id, auth = stack.account()
    stack.quota.fault.delays["Consume"] = 0.6
    async with process(
        TOLLWAY_GATEWAY_PORT=str(port),
        TOLLWAY_BILLING_ADDR=address(stack.billing_server),
        TOLLWAY_QUOTA_ADDR=address(stack.quota_server),
    ) as child:
        await until_ready(child)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            running = asyncio.create_task(http.post("/v1/usage", json={"meter": "messages"}, headers=auth))
            await asyncio.wait_for(stack.quota.fault.entered["Consume"].wait(), 10)
            child.send_signal(signal.SIGTERM)
            assert (await running).status_code == 200
        async with asyncio.timeout(10):
            assert await child.wait() == 0
    assert stack.quota.used[account_id] == 1


async def test_a_taken_port_ends_it_with_a_reason(stack: Stack) -> None:
    async with process(TOLLWAY_GATEWAY_PORT=str(stack.port)) as child:
        _, told = await asyncio.wait_for(child.communicate(), 30)
        assert child.returncode == 74
        assert f"cannot bind 127.0.0.1:{stack.port}" in told.decode()
        assert "Traceback" not in told.decode()


async def test_without_a_token_it_does_not_start_outside_local_mode() -> None:
    async with process(TOLLWAY_LOCAL="") as child:
        _, told = await asyncio.wait_for(child.communicate(), 60)
        assert child.returncode == 78
        assert "TOLLWAY_RPC_TOKEN" in told.decode()
        assert "Traceback" not in told.decode()


async def test_no_credential_reaches_the_log(stack: Stack) -> None:
    port = ports.reserve()
    _, auth = stack.account()
    async with process(
        TOLLWAY_GATEWAY_PORT=str(port),
        TOLLWAY_LOG_LEVEL="debug",
        TOLLWAY_PUBLIC_URL=ISSUER,
        TOLLWAY_BILLING_ADDR=address(stack.billing_server),
        TOLLWAY_QUOTA_ADDR=address(stack.quota_server),
    ) as child:
        await until_ready(child)
        key = auth["Authorization"].removeprefix("Bearer ")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            made = (await http.post("/v1/signup", json={"email": "a@example.com", "name": "A"})).json()["api_key"]
            token = (await http.post("/v1/auth/token", headers=auth)).json()["access_token"]
            bearer = {"Authorization": f"Bearer {token}"}
            assert (await http.post("/v1/usage", json={"meter": "messages"}, headers=bearer)).status_code == 200
            await http.get(f"/v1/{key}?api_key={key}", headers={"X-Request-Id": key})
        child.send_signal(signal.SIGTERM)
        logged, told = await asyncio.wait_for(child.communicate(), 10)
    for secret in (key, made, token):
        assert secret.encode() not in logged + told
    assert b'"account_id"' in logged
