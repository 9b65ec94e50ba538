"""`python -m gateway.main`: the REST surface on uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn

from gateway.app import create
from gateway.backend import Backend
from gateway.http import protocol
from gateway.settings import GatewaySettings
from services.kit import process, telemetry
from services.kit.config import load

DRAIN_S = 10


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: the process has them."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


def bind(host: str, port: int) -> socket.socket:
    """Raises RuntimeError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise RuntimeError(f"cannot bind {host}:{port}: {error.strerror}") from error


@contextlib.asynccontextmanager
async def serve(settings: GatewaySettings, tasks: process.Tasks) -> AsyncIterator[int]:
    """Serves until the context ends, then lets running requests finish. Yields the port."""
    listener = bind(settings.host, settings.gateway_port)
    backend = Backend(settings)
    config = uvicorn.Config(
        create(settings, backend),
        http=protocol(settings.public_url),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")

    async def watch() -> None:
        await asyncio.shield(serving)

    try:
        tasks.start(watch(), "http")
        listening = asyncio.create_task(server.listening.wait())
        await asyncio.wait((listening, serving), return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        yield int(listener.getsockname()[1])
    finally:
        await tasks.stop()
        server.should_exit = True
        await serving
        await backend.close()


@contextlib.asynccontextmanager
async def _process(tasks: process.Tasks) -> AsyncIterator[None]:
    settings = load(GatewaySettings)
    telemetry.configure_logs("gateway", settings.log_level)
    async with serve(settings, tasks):
        yield


if __name__ == "__main__":
    process.run(_process)
