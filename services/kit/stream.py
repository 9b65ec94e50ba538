"""The JetStream stream TOLLWAY that carries every event, and a connection to it that outlives the server's absence."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

import nats
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError

NAME = "TOLLWAY"
DEAD_LETTERS = "TOLLWAY_DEAD"
MAX_BYTES = 8 * 1024**3
MAX_AGE_S = 30 * 86400
DUPLICATE_WINDOW_S = 120
PUBLISH_TIMEOUT_S = 5

log = structlog.get_logger(__name__)


class Stream:
    """A lazy connection: `start` returns at once, publishing and consuming wait until the server is there."""

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._connect(), name="stream.connect")

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def jetstream(self) -> JetStreamContext:
        """The context, once connected and the streams exist."""
        await self._connected.wait()
        assert self._jetstream is not None  # noqa: S101 - set before the event
        return self._jetstream

    async def publish(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        """Returns when the stream has stored it. Raises TimeoutError or a NATS error when it has not."""
        async with asyncio.timeout(PUBLISH_TIMEOUT_S):
            jetstream = await self.jetstream()
            try:
                await jetstream.publish(subject, data, timeout=PUBLISH_TIMEOUT_S, headers=headers)
            except NoStreamResponseError:
                # The server lost its storage: make the stream again; the outbox still has what it held.
                await self._ensure(jetstream)
                await jetstream.publish(subject, data, timeout=PUBLISH_TIMEOUT_S, headers=headers)

    async def _connect(self) -> None:
        delay = 0.1
        while True:
            try:
                self._client = await nats.connect(
                    self._url,
                    name=self._name,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.25,
                    connect_timeout=2,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                )
                self._jetstream = self._client.jetstream(timeout=PUBLISH_TIMEOUT_S)
                await self._ensure(self._jetstream)
            except Exception as error:
                log.info("stream.waiting", server=urlsplit(self._url).hostname, error=type(error).__name__)
                if self._client is not None:
                    with contextlib.suppress(Exception):
                        await self._client.close()
                await asyncio.sleep(delay)  # backoff between connection attempts: there is nothing to await
                delay = min(delay * 2, 2.0)
            else:
                self._connected.set()
                return

    async def _ensure(self, jetstream: JetStreamContext) -> None:
        for config in (
            StreamConfig(
                name=NAME,
                subjects=["tollway.>"],
                retention=RetentionPolicy.LIMITS,
                # A full stream refuses: what it cannot hold stays in the outbox, nothing old is thrown away.
                discard=DiscardPolicy.NEW,
                storage=StorageType.FILE,
                max_bytes=MAX_BYTES,
                max_age=MAX_AGE_S,
                duplicate_window=DUPLICATE_WINDOW_S,
            ),
            StreamConfig(
                name=DEAD_LETTERS,
                subjects=["tollway_dead.>"],
                discard=DiscardPolicy.OLD,
                storage=StorageType.FILE,
                max_bytes=MAX_BYTES // 8,
                max_age=MAX_AGE_S,
            ),
        ):
            try:
                await jetstream.add_stream(config)
            except APIError as error:
                # Exists with another configuration, an operator's: theirs stands.
                if error.err_code != 10058:
                    raise

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._client is not None and not self._client.is_closed:
            await self._client.close()

    async def _on_error(self, error: Exception) -> None:
        log.info("stream.error", error=type(error).__name__)

    async def _on_disconnect(self) -> None:
        log.warning("stream.disconnected")

    async def _on_reconnect(self) -> None:
        log.info("stream.reconnected")
