"""The JetStream stream TOLLWAY that carries every event, and a connection to it that outlives the server's absence."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError

from services.kit.process import cancel_until_done

NAME = "TOLLWAY"
DEAD_LETTERS = "TOLLWAY_DEAD"
MAX_BYTES = 1024**3  # the server sets it aside at once, so it must fit a small disk; an operator's own setting stands
MAX_AGE_S = 30 * 86400
DUPLICATE_WINDOW_S = 120
PUBLISH_TIMEOUT_S = 4

_EXISTS_OTHERWISE = 10058  # JetStream's code: the stream is there with another configuration

log = structlog.get_logger(__name__)


def _configurations() -> tuple[StreamConfig, StreamConfig]:
    events = StreamConfig(
        name=NAME,
        subjects=["tollway.>"],
        retention=RetentionPolicy.LIMITS,
        # A full stream refuses: what it cannot hold stays in the outbox, nothing old is thrown away.
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        max_bytes=MAX_BYTES,
        max_age=MAX_AGE_S,
        duplicate_window=DUPLICATE_WINDOW_S,
    )
    dead = StreamConfig(
        name=DEAD_LETTERS,
        subjects=["tollway_dead.>"],
        discard=DiscardPolicy.OLD,
        storage=StorageType.FILE,
        max_bytes=MAX_BYTES // 8,
        max_age=MAX_AGE_S,
        duplicate_window=DUPLICATE_WINDOW_S,
    )
    return events, dead


class Stream:
    """A lazy connection: `start` returns at once, publishing and consuming wait until the server is there.

    One task connects, declares the streams, and declares them again after each reconnection or `renew`.
    """

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._ready = asyncio.Event()  # connected, and the streams exist
        self._renew = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._last_error = ""

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name="stream")

    @property
    def connected(self) -> bool:
        return self._ready.is_set()

    async def jetstream(self) -> JetStreamContext:
        """The context, as soon as the server is connected and the streams exist."""
        await self._ready.wait()
        assert self._jetstream is not None  # noqa: S101 - set before the event
        return self._jetstream

    def renew(self) -> None:
        """Somebody found a stream missing (the server lost its storage): they are declared again, once for all."""
        self._ready.clear()
        self._renew.set()

    async def publish(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        """Returns when the stream has stored it. Raises TimeoutError (4 s) or a NATS error when it may not have."""
        async with asyncio.timeout(PUBLISH_TIMEOUT_S):
            jetstream = await self.jetstream()
            try:
                await jetstream.publish(subject, data, timeout=PUBLISH_TIMEOUT_S, headers=headers)
            except NoStreamResponseError:
                self.renew()
                jetstream = await self.jetstream()
                await jetstream.publish(subject, data, timeout=PUBLISH_TIMEOUT_S, headers=headers)

    async def overhear(self, subject: str, heard: Callable[[bytes], None]) -> None:
        """Until cancelled: hands on the data of what is published from now on, in every process that listens.

        Nothing is kept or repeated: what passes while the connection is away is missed, so use it beside a consumer,
        to learn sooner.
        """
        while True:
            await self._ready.wait()
            try:
                assert self._client is not None  # noqa: S101 - set before the event
                subscription = await self._client.subscribe(subject)
                async for message in subscription.messages:  # until the client is closed
                    heard(message.data)
            except Exception as error:
                log.info("stream.deaf", subject=subject, error=type(error).__name__)
            await asyncio.sleep(0.5)  # pause between attempts: there is nothing to await

    async def close(self) -> None:
        self._ready.clear()
        if self._task is not None:
            await cancel_until_done([self._task])
        if self._client is not None:
            with contextlib.suppress(Exception):  # a server that went away has nothing left to close
                async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                    await self._client.close()

    async def _keep(self) -> None:
        delay = 0.1
        while True:
            try:
                if self._client is None or self._client.is_closed:
                    self._jetstream = await self._connect()
                self._renew.clear()
                assert self._jetstream is not None  # noqa: S101
                await self._declare(self._jetstream)
            except Exception as error:
                log.info("stream.waiting", server=urlsplit(self._url).hostname, error=repr(error))
                await asyncio.sleep(delay)  # backoff between attempts: there is nothing to await
                delay = min(delay * 2, 2.0)
                continue
            delay = 0.1
            # When it disconnected meanwhile, the reconnection renews.
            if self._client is not None and self._client.is_connected and not self._renew.is_set():
                self._ready.set()
                self._last_error = ""
            await self._renew.wait()

    async def _connect(self) -> JetStreamContext:
        """Waits for the server, however long that takes; nats-py keeps the connection from then on."""
        self._client = Client()
        await self._client.connect(
            self._url,
            name=self._name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds for asyncio.sleep, so a fraction is fine
            connect_timeout=2,
            ping_interval=10,
            max_outstanding_pings=2,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
            reconnected_cb=self._on_reconnect,
            closed_cb=self._on_closed,
        )
        return self._client.jetstream(timeout=PUBLISH_TIMEOUT_S)

    async def _declare(self, jetstream: JetStreamContext) -> None:
        for config in _configurations():
            try:
                await jetstream.add_stream(config)
            except APIError as error:
                if error.err_code != _EXISTS_OTHERWISE:  # an operator's configuration stands
                    raise

    async def _on_error(self, error: Exception) -> None:
        # While the server is away this comes four times a second: one line for each kind of trouble is enough.
        if (kind := type(error).__name__) != self._last_error:
            self._last_error = kind
            log.info("stream.error", error=kind)

    async def _on_disconnect(self) -> None:
        if self._ready.is_set():
            log.warning("stream.disconnected")
        self._ready.clear()

    async def _on_reconnect(self) -> None:
        log.info("stream.reconnected")
        self.renew()

    async def _on_closed(self) -> None:
        """nats-py gave up, as it does on a refused authorization: a new client is made."""
        self.renew()
