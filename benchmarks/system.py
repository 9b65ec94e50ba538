"""The whole system on its own PostgreSQL and NATS (fsync on in both), with a relay before Stripe's stand-in.

The sandbox is given no webhook endpoint: the measurement delivers the events itself, so it knows when each arrived.
The relay notes when each call to Stripe began and ended, so that Stripe's own time can be told from ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks import common
from local import nats, ports
from local import settings as local_settings
from local.blocking import run_apart
from local.postgres import create_databases
from local.postgres import running as running_postgres
from local.state import State

SERVICES = ("billing", "quota", "notify", "gateway")
_PORTS = ("gateway", "sandbox", "mailbox", "smtp", *(f"{n}{m}" for n in SERVICES[:3] for m in ("", "_metrics")))


@dataclass
class StripeCall:
    what: str  # `GET /v1/subscriptions`
    begin: float  # time.perf_counter()
    end: float


class StripeRelay:
    """Passes bytes on, both ways; HTTP/1.1 without pipelining, as Stripe's library speaks it."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.calls: list[StripeCall] = []
        self._open: set[asyncio.StreamWriter] = set()
        self._moved = asyncio.Event()

    def forget(self) -> None:
        self.calls.clear()

    async def answered(self, what: str) -> None:
        """Returns when the first such call has begun to be answered."""
        while not any(call.what == what and call.end > call.begin for call in self.calls):
            self._moved.clear()
            await self._moved.wait()

    async def serve(self, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._connected, "127.0.0.1", port)

    def close(self) -> None:
        for writer in self._open:
            writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, sink = await asyncio.open_connection("127.0.0.1", self._target)
        self._open |= {writer, sink}
        calls: list[StripeCall] = []
        asked = asyncio.create_task(self._ask(reader, sink, calls))
        try:
            while data := await upstream.read(65536):
                calls[-1].end = time.perf_counter()
                self._moved.set()
                writer.write(data)
        except ConnectionError:
            pass  # a side that left ends the pair
        finally:
            asked.cancel()
            writer.close()
            sink.close()
            self._open -= {writer, sink}

    async def _ask(self, reader: asyncio.StreamReader, sink: asyncio.StreamWriter, calls: list[StripeCall]) -> None:
        answered = -1.0
        while data := await reader.read(65536):
            if not calls or calls[-1].end != answered:  # the last one was answered: these bytes begin another
                now = answered = time.perf_counter()
                line = data.partition(b"\r\n")[0].decode("latin-1").split(" ")
                calls.append(StripeCall(f"{line[0]} {line[1].partition('?')[0]}", now, now))
                self.calls.append(calls[-1])
            sink.write(data)
        sink.close()


@dataclass
class System:
    env: dict[str, str]
    stripe_port: int
    relay: StripeRelay
    processes: dict[str, psutil.Process] = field(default_factory=dict)

    def port(self, name: str) -> int:
        return int(self.env[f"TOLLWAY_{name.upper()}_PORT"])

    def rss_mb(self) -> dict[str, float]:
        return {name: round(self.processes[name].memory_info().rss / 2**20, 1) for name in SERVICES}


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[System]:
    """The system, ready, for the length of a block."""
    with ExitStack() as stack:
        folder = _folder(stack)
        admin = stack.enter_context(running_postgres(folder, ports.reserve(), "bench"))
        given = {f"TOLLWAY_{name.upper()}_PORT": str(ports.reserve()) for name in _PORTS}
        given |= {"TOLLWAY_POSTGRES_URL": admin, "CATALOG": "catalogs/skytale.yaml", "TOLLWAY_LOG_LEVEL": "info"}
        given["TOLLWAY_NATS_URL"] = stack.enter_context(nats.running(folder, ports.reserve()))
        state = State(folder / "state")
        state.hold()
        stack.callback(state.release)
        settings = local_settings.load(state, given)
        run_apart(create_databases(admin, [f"tollway_{name}" for name in local_settings.DATABASES]))
        relay, relay_port = StripeRelay(settings.ports["sandbox"]), ports.reserve()
        env = dict(settings.environment) | {"STRIPE_API_BASE": f"http://127.0.0.1:{relay_port}"}
        env["TOLLWAY_STRIPE_RATE"] = "1000"  # a queue for Stripe's limit would be measured instead
        system = System(env, settings.ports["sandbox"], relay)
        sandbox = ("--port", str(system.stripe_port), "--state", str(folder / "sandbox"))
        stack.enter_context(common.process("local.stripe_sandbox", *sandbox, **env))
        stack.enter_context(common.process("local.mailbox", "--state", str(folder / "mailbox"), **env))
        await common.listening(system.stripe_port)
        server = await relay.serve(relay_port)
        try:
            await _push(env)
            for name in SERVICES:
                module = "gateway.main" if name == "gateway" else f"services.{name}.main"
                system.processes[name] = stack.enter_context(common.process(module, **env))
            for name in ("mailbox", "smtp", *SERVICES):
                await common.listening(system.port(name))
            yield system
        finally:
            server.close()
            relay.close()


def _folder(stack: ExitStack) -> Path:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollway-bench-")))
    folder.chmod(0o711)  # PostgreSQL may have to run as another user
    return folder


async def _push(env: dict[str, str]) -> None:
    whole = {name: value for name, value in os.environ.items() if not name.startswith("TOLLWAY_")} | env
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.billing.push", env=whole, stdout=subprocess.DEVNULL
    )
    if await process.wait() != 0:
        raise RuntimeError("the catalog could not be pushed")
