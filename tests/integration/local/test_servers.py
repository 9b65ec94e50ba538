"""The embedded servers, and the fixtures over them or over containers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import nats
import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from local import ports
from local import postgres as local_postgres
from local.blocking import run_apart

PASSWORD = "correct horse/@:%"  # characters that a URL has to escape


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with local_postgres.running(tmp_path, ports.reserve(), PASSWORD) as dsn:
        yield dsn


async def test_a_database_is_fresh_and_takes_sqlalchemy_over_asyncpg(database: str) -> None:
    engine = create_async_engine(database)
    async with engine.begin() as connection:
        tables = await connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))
        assert tables.scalar() == 0
        await connection.execute(text("CREATE TABLE left_behind (id int)"))
    await engine.dispose()


async def test_jetstream_acknowledges_what_is_published(nats_url: str) -> None:
    client = await nats.connect(nats_url)
    stream = client.jetstream()
    await stream.add_stream(name="SERVERS_TEST", subjects=["servers-test.>"])
    assert (await stream.publish("servers-test.a", b"x")).seq == 1
    await stream.delete_stream("SERVERS_TEST")
    await client.close()


async def test_the_embedded_server_refuses_a_wrong_password(server: str) -> None:
    assert await local_postgres.is_ready(server)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server, password="guess")


async def test_the_embedded_server_keeps_what_it_committed(tmp_path: Path) -> None:
    for expected in (0, 1, 2):
        with local_postgres.running(tmp_path, ports.reserve(), PASSWORD) as dsn:
            connection = await asyncpg.connect(dsn)
            await connection.execute("CREATE TABLE IF NOT EXISTS kept (id int)")
            assert await connection.fetchval("SELECT count(*) FROM kept") == expected
            await connection.execute("INSERT INTO kept VALUES (1)")
            await connection.close()


async def test_missing_databases_are_created_and_present_ones_kept(server: str) -> None:
    await local_postgres.create_databases(server, ["tollway_a"])
    assert await local_postgres.is_ready(server, ["tollway_a", "tollway_b"])
    connection = await asyncpg.connect(server)
    names = {row[0] for row in await connection.fetch("SELECT datname FROM pg_database")}
    await connection.close()
    assert {"tollway_a", "tollway_b"} <= names


@pytest.fixture(params=["as usual", "namespaces forbidden"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A PATH; in the second case its `unshare` fails, as in a container without privileges."""
    usual = os.environ["PATH"]
    if request.param == "as usual":
        return usual
    if os.geteuid() != 0:
        pytest.skip("only root has to become somebody else")
    fake = tmp_path / "bin" / "unshare"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho unshare failed: Operation not permitted >&2\nexit 1\n")
    fake.chmod(0o755)
    return f"{fake.parent}:{usual}"


def test_no_server_outlives_a_parent_that_was_killed(tmp_path: Path, path: str) -> None:
    program = """
import sys, time
from pathlib import Path
from local import nats, ports, postgres
folder = Path(sys.argv[1])
with postgres.running(folder, ports.reserve(), "pw"), nats.running(folder, ports.reserve()):
    print("ready", flush=True)
    time.sleep(600)
"""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    command = [sys.executable, "-c", program, str(folder)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PATH": path})
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    servers = psutil.Process(parent.pid).children(recursive=True)
    assert {"postgres", "nats-server"} <= {server.name() for server in servers}
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(servers, timeout=10)
    assert alive == []
    # What was left behind keeps nobody from starting again, the other way around root included.
    with local_postgres.running(folder, ports.reserve(), "pw") as dsn:
        assert run_apart(local_postgres.is_ready(dsn))
