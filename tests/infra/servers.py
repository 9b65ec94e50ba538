"""PostgreSQL and NATS for the session, and a fresh database for a test."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from local import nats as local_nats
from local import ports
from local import postgres as local_postgres
from local.blocking import run_apart
from tests.infra import choice


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The admin DSN of a PostgreSQL for this session: `postgresql://…/postgres`, a superuser's."""
    # Nothing here outlives the session, so nothing is worth waiting for the disk.
    quick = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "400"}
    if not choice.settled().containers:
        folder = tmp_path_factory.mktemp("postgres")
        with local_postgres.running(folder, ports.reserve(), uuid.uuid4().hex, settings=quick) as dsn:
            yield dsn
        return
    from testcontainers.community.postgres import PostgresContainer

    container = PostgresContainer(
        choice.POSTGRES_IMAGE, username="tollway", password=uuid.uuid4().hex, dbname="postgres", driver=None
    )
    options = [f"{name}={value}" for name, value in quick.items()]
    container.with_command(["postgres", *(part for option in options for part in ("-c", option))])
    container.with_kwargs(labels={choice.LABEL: "postgres"})
    with container:
        yield container.get_connection_url()


@contextlib.contextmanager
def running_nats(folder: Path) -> Iterator[str]:
    """A NATS server with JetStream for the length of a block; gives its URL."""
    if not choice.settled().containers:
        with local_nats.running(folder, ports.reserve()) as url:
            yield url
        return
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    container = DockerContainer(choice.NATS_IMAGE).with_command("-js").with_exposed_ports(4222)
    container.waiting_for(LogMessageWaitStrategy("Server is ready"))
    container.with_kwargs(labels={choice.LABEL: "nats"})
    with container:
        yield f"nats://{container.get_container_host_ip()}:{container.get_exposed_port(4222)}"


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a NATS server with JetStream for this session. Tests share it: use streams of your own."""
    with running_nats(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """A fresh empty database: `postgresql+asyncpg://…`. It is dropped afterwards, connections or not."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    run_apart(execute(postgres, f'CREATE DATABASE "{name}"'))
    yield local_postgres.service_dsn(postgres, name)
    run_apart(execute(postgres, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


async def execute(dsn: str, statement: str) -> None:
    """Runs one statement on a connection of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
