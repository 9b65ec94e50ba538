"""Overhearing: every process that listens hears what passes, also after the server, or its own client, went away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from local import nats, ports
from services.kit.stream import Stream
from tests.infra.processes import end

SUBJECT = "tollway.billing.KeyRevoked.*"


class Listener:
    """A process's stream with what it overheard."""

    def __init__(self, url: str) -> None:
        self.stream = Stream(url, name="listener")
        self.heard: list[bytes] = []

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Listener]:
        self.stream.start()
        task = asyncio.create_task(self.stream.overhear(SUBJECT, self.heard.append))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.stream.close()

    async def hears(self, sender: Stream, word: bytes) -> None:
        """Says it until it is heard: what passes while nobody listens is missed."""
        async with asyncio.timeout(30):
            while word not in self.heard:
                with contextlib.suppress(Exception):  # the server is on its way back
                    await sender.publish("tollway.billing.KeyRevoked.acct_1", word, {})
                await asyncio.sleep(0.05)  # between words there is nothing to await


@contextlib.asynccontextmanager
async def sending(url: str) -> AsyncIterator[Stream]:
    stream = Stream(url, name="sender")
    stream.start()
    try:
        yield stream
    finally:
        await stream.close()


async def test_every_listener_hears_and_nobody_hears_what_is_said_elsewhere(nats_url: str) -> None:
    first, second = Listener(nats_url), Listener(nats_url)
    async with sending(nats_url) as sender, first.listening(), second.listening():
        await first.hears(sender, b"a")
        await second.hears(sender, b"b")
        await sender.publish("tollway.billing.KeyIssued.acct_1", b"other", {})
        await first.hears(sender, b"c")
        assert b"other" not in first.heard + second.heard


async def test_a_listener_hears_again_after_the_server_and_after_its_own_client_went_away(tmp_path: Path) -> None:
    port = ports.reserve()
    url = f"nats://127.0.0.1:{port}"
    server = nats.start(tmp_path / "nats", port, tmp_path / "nats.log")
    listener = Listener(url)
    try:
        async with sending(url) as sender, listener.listening():
            await listener.hears(sender, b"before")
            await asyncio.to_thread(end, server)
            server = nats.start(tmp_path / "nats", port, tmp_path / "nats.log")
            await listener.hears(sender, b"after the server")
            client = listener.stream._client
            assert client is not None
            await client.close()  # as nats-py does when it gives up
            await listener.hears(sender, b"after the client")
            assert listener.stream._client is not client
    finally:
        await asyncio.to_thread(end, server)
