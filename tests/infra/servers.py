"""PostgreSQL and NATS for the session, and a fresh database for a test."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from local import nats as local_nats
from local import ports
from local import postgres as local_postgres
from local.blocking import run_apart
from services.kit import migrate
from services.kit.database import create_engine
from tests.infra import choice

_SERVICES = Path(__file__).parents[2] / "services"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The admin DSN of a PostgreSQL for this session: `postgresql://…/postgres`, a superuser's."""
    # Nothing here outlives the session, so nothing is worth waiting for the disk.
    quick = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "400"}
    quick |= {"min_wal_size": "64MB", "max_wal_size": "256MB"}
    if not choice.settled().containers:
        folder = _in_memory() or tmp_path_factory.mktemp("postgres")
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            dsn = stack.enter_context(local_postgres.running(folder, ports.reserve(), uuid.uuid4().hex, settings=quick))
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


def _in_memory() -> Path | None:
    """A folder in memory for data that nothing outlives, where there is room: the disk is what tests wait for."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 4 * 2**30:
        return None
    return Path(tempfile.mkdtemp(prefix="tollway-tests-", dir=memory))


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
    with _fresh(postgres) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def templates(postgres: str) -> Templates:
    """Every service's database as its migrations make it, made when first asked for."""
    return Templates(postgres)


@pytest.fixture
def billing_database(templates: Templates) -> Iterator[str]:
    """A fresh copy of billing's migrated database."""
    with templates.copy("billing") as dsn:
        yield dsn


@pytest.fixture
def quota_database(templates: Templates) -> Iterator[str]:
    """A fresh copy of quota's migrated database. Whoever starts on it makes the ledger's days."""
    with templates.copy("quota") as dsn:
        yield dsn


@pytest.fixture
def notify_database(templates: Templates) -> Iterator[str]:
    """A fresh copy of notify's migrated database."""
    with templates.copy("notify") as dsn:
        yield dsn


class Templates:
    """Databases that are migrated once, because copying one takes a fraction of what its migrations take."""

    def __init__(self, admin: str) -> None:
        self._admin = admin
        self._made: dict[str, str] = {}

    def copy(self, service: str) -> contextlib.AbstractContextManager[str]:
        """A fresh copy for the length of a block; gives its DSN."""
        return _fresh(self._admin, self._name(service))

    def _name(self, service: str) -> str:
        if service not in self._made:
            name = f"template_{service}"
            run_apart(self._make(name, _SERVICES / service / "migrations"))
            self._made[service] = name
        return self._made[service]

    async def _make(self, name: str, migrations: Path) -> None:
        await execute(self._admin, f'CREATE DATABASE "{name}"')
        engine = create_engine(local_postgres.service_dsn(self._admin, name))
        try:
            await migrate.upgrade(engine, migrations)
        finally:
            await engine.dispose()


@contextlib.contextmanager
def _fresh(admin: str, template: str = "template1") -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:16]}"
    # WAL_LOG, the default, asks for no checkpoint; FILE_COPY asks for two.
    run_apart(execute(admin, f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    try:
        yield local_postgres.service_dsn(admin, name)
    finally:
        run_apart(execute(admin, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


async def execute(dsn: str, statement: str) -> None:
    """Runs one statement on a connection of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
