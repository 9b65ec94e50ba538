"""Kill -9 at every named place, and a PostgreSQL that stops or restarts: what was told OK is there, once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from local import ports
from local import postgres as local_postgres
from local.blocking import run_apart
from services.kit.database import create_engine
from tests.integration.quota import world
from tollway.quota.v1 import quota_pb2_grpc

CALLS = 60


async def until_told(
    stub: quota_pb2_grpc.QuotaServiceStub, account_id: str, request_id: str, deadline: float
) -> tuple[bool, bool]:
    """Asks with one id until there is an answer: (allowed, replayed)."""
    while True:
        try:
            decision = await world.consume(stub, account_id, request_id=request_id, deadline_s=5)
        except grpc.aio.AioRpcError as error:
            if (
                error.code() is not grpc.StatusCode.UNAVAILABLE
                and error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
            ):
                raise
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)  # a client's backoff
        else:
            return decision.allowed, decision.replayed


async def ledger(engine: AsyncEngine) -> tuple[int, int, int]:
    """Units in the counters, units in the ledger, ids in the ledger."""
    async with engine.connect() as connection:
        counted = await connection.execute(text("SELECT coalesce(sum(used), 0) FROM counter WHERE period = 'month'"))
        lines = await connection.execute(text("SELECT coalesce(sum(amount), 0), count(DISTINCT key) FROM idem"))
        units, ids = lines.one()
        return int(counted.scalar_one()), int(units), int(ids)


@pytest.mark.parametrize("place", ["quota.lane.opened", "quota.lane.before_commit", "quota.lane.after_commit"])
async def test_a_killed_process_loses_no_grant_and_counts_none_twice(tmp_path: Path, database: str, place: str) -> None:
    async with world.tables(database) as engine:
        await world.put(
            engine, world.entitlements("acct_a", limit=CALLS - 10), world.entitlements("acct_b", limit=None)
        )
        with world.process(tmp_path, database) as first:
            async with world.client(first.address) as stub:
                await world.consume(stub, "acct_a", request_id="warm")
                first.arm(place, passes=2)
                deadline = time.monotonic() + 60
                calls = [asyncio.create_task(until_told(stub, "acct_a", f"r{n}", deadline)) for n in range(CALLS)]
                # More work in small batches, so that the place is passed often enough.
                more = asyncio.create_task(_trickle(engine, stub, deadline, first))
                assert await asyncio.to_thread(first.child.wait, 30) == -signal.SIGKILL
                with world.process(tmp_path, database, port=first.port):
                    told = await asyncio.gather(*calls)
                    trickled = await more
        granted = sum(allowed for allowed, _ in told) + 1
        assert granted == CALLS - 10
        granted += len(trickled)
        assert await ledger(engine) == (granted, granted, granted)


async def _trickle(
    engine: AsyncEngine, stub: quota_pb2_grpc.QuotaServiceStub, deadline: float, process: world.Process
) -> list[tuple[bool, bool]]:
    """One after another, on an account that changes all the time: these are decided under locks."""
    told: list[tuple[bool, bool]] = []
    while process.child.poll() is None:
        await world.put(engine, world.entitlements("acct_b", limit=None, version=len(told) + 2))
        told.append(await until_told(stub, "acct_b", f"t{len(told)}", deadline))
    return told


@contextlib.asynccontextmanager
async def own_postgres(folder: Path) -> AsyncIterator[tuple[int, str, str]]:
    """A server that a test may stop: port, admin DSN, the DSN of a database on it."""
    port = ports.reserve()
    with local_postgres.running(folder, port, "pw") as admin:
        await local_postgres.create_databases(admin, ["quota"])
        yield port, admin, local_postgres.service_dsn(admin, "quota")


def postmaster(folder: Path) -> psutil.Process:
    return psutil.Process(int((folder / "postgres" / "postmaster.pid").read_text().split()[0]))


async def refused_within(stub: quota_pb2_grpc.QuotaServiceStub, seconds: float) -> None:
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.consume(stub, "acct_a", deadline_s=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - began < seconds


async def test_a_stopped_postgres_is_a_bounded_wait_and_recovery_needs_no_restart(tmp_path: Path) -> None:
    async with own_postgres(tmp_path) as (_, _, dsn):
        async with world.tables(dsn) as engine:
            await world.put(engine, world.entitlements("acct_a", limit=None))
        with world.process(tmp_path, dsn) as quota:
            async with world.client(quota.address) as stub:
                assert (await world.consume(stub, "acct_a")).allowed
                server = postmaster(tmp_path)
                frozen = [server, *server.children(recursive=True)]
                for each in frozen:
                    each.suspend()
                try:
                    # A batch's statement is given three seconds, a new connection two; patience ends at two.
                    await asyncio.gather(*(refused_within(stub, 8) for _ in range(20)))
                finally:
                    for each in frozen:
                        each.resume()
                answered = await until_told(stub, "acct_a", "after", time.monotonic() + 20)
                assert answered == (True, False)
        engine = create_engine(dsn)
        assert await ledger(engine) == (2, 2, 2)
        await engine.dispose()


async def test_a_restarted_postgres_is_found_again(tmp_path: Path) -> None:
    port = ports.reserve()
    data, log = tmp_path / "postgres", tmp_path / "postgres.log"
    admin = local_postgres.admin_dsn(port, "pw")

    def start() -> subprocess.Popen[bytes]:
        child = local_postgres.start(data, port, "pw", log)
        deadline = time.monotonic() + 30
        while not run_apart(local_postgres.is_ready(admin)):
            assert time.monotonic() < deadline
        return child

    child = await asyncio.to_thread(start)
    try:
        await local_postgres.create_databases(admin, ["quota"])
        dsn = local_postgres.service_dsn(admin, "quota")
        async with world.tables(dsn) as engine:
            await world.put(engine, world.entitlements("acct_a", limit=None))
        with world.process(tmp_path, dsn) as quota:
            async with world.client(quota.address) as stub:
                told = 0
                for stop in (signal.SIGINT, signal.SIGQUIT):
                    deadline = time.monotonic() + 60
                    calls = [
                        asyncio.create_task(until_told(stub, "acct_a", f"{stop}-{n}", deadline)) for n in range(100)
                    ]
                    child.send_signal(stop)
                    await asyncio.to_thread(child.wait, 20)
                    await refused_within(stub, 6)
                    child = await asyncio.to_thread(start)
                    told += sum(allowed for allowed, _ in await asyncio.gather(*calls))
                assert told == 200
        engine = create_engine(dsn)
        assert await ledger(engine) == (200, 200, 200)
        await engine.dispose()
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(20)
