"""NATS: reachable, with JetStream, the stream as it must be, with room, and no dead letters."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, StorageType, StreamInfo
from nats.js.errors import NotFoundError

from services.doctor.finding import Finding
from services.kit.stream import DEAD_LETTERS, NAME

FULL = 80  # per cent of the stream's bytes
_CONNECT_S = 3


async def examine(url: str) -> AsyncIterator[Finding]:
    parts = urlsplit(url)
    server = f"{parts.hostname}:{parts.port or 4222}"
    client = Client()
    try:
        await client.connect(
            url, connect_timeout=_CONNECT_S, allow_reconnect=False, max_reconnect_attempts=0, error_cb=_quiet
        )
        yield Finding.ok("NATS", f"version {_version(client)} at {server}")
        async for finding in _streams(client):
            yield finding
    except (NatsError, OSError, TimeoutError) as error:
        fix = "check TOLLWAY_NATS_URL, that the server runs with JetStream (-js), and that it lets us in"
        yield Finding.fail("NATS", f"{server}: {type(error).__name__}", fix)
    finally:
        if client.is_connected:
            with contextlib.suppress(Exception):
                await client.close()


def _version(client: Client) -> str:
    version = client.connected_server_version
    return f"{version.major}.{version.minor}.{version.patch}"


async def _quiet(_: Exception) -> None:
    """What goes wrong is told by the finding."""


async def _streams(client: Client) -> AsyncIterator[Finding]:
    jetstream = client.jetstream(timeout=_CONNECT_S)
    try:
        events = await jetstream.stream_info(NAME)
    except NotFoundError:
        yield Finding.fail(f"stream {NAME}", "it is not there", "start a service: each declares it")
        return
    yield _stream(events)
    with contextlib.suppress(NotFoundError):
        dead = (await jetstream.stream_info(DEAD_LETTERS)).state.messages
        if dead:
            told = f"{dead} events could not be consumed"
            yield Finding.warn("dead letters", told, f"read them in the stream {DEAD_LETTERS}; docs/events.md says how")
        else:
            yield Finding.ok("dead letters", "none")


def _stream(info: StreamInfo) -> Finding:
    check, config = f"stream {NAME}", info.config
    fix = f"nats stream edit {NAME} --discard new --storage file"
    if config.discard != DiscardPolicy.NEW:
        return Finding.fail(check, "when it is full it throws old events away", fix)
    if config.storage != StorageType.FILE:
        return Finding.fail(check, "it is kept in memory: a restart loses it", "make it anew with file storage")
    if config.max_bytes is None or config.max_bytes <= 0:
        return Finding.ok(check, f"{info.state.messages} events, no limit of bytes")
    used = info.state.bytes * 100 // config.max_bytes
    told = f"{info.state.messages} events, {used}% of {config.max_bytes // 1024**2} MiB"
    if used >= FULL:
        return Finding.warn(check, told, f"give it more: nats stream edit {NAME} --max-bytes …; the outboxes wait else")
    return Finding.ok(check, told)
