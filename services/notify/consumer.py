"""The events of billing and quota, as they reach the use cases."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import is_transient
from services.kit.inbox import Consumer, Received
from services.kit.stream import Stream
from services.notify import application, events, ports
from services.notify.storage import NotifyUnitOfWork

DURABLE = "notify"


def build(
    stream: Stream, engine: AsyncEngine, directory: ports.Directory, *, mail_domain: str, wake: Callable[[], None]
) -> Consumer:
    """`wake` is called when a message waits to be sent."""

    async def handle(event: Received) -> None:
        if await application.believe(event, NotifyUnitOfWork(engine), directory, mail_domain=mail_domain):
            wake()

    return Consumer(stream, durable=DURABLE, handlers=dict.fromkeys(events.HANDLED, handle), is_transient=is_transient)
