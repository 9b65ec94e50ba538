"""The events of billing and quota, as they reach the use cases."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import is_transient
from services.kit.inbox import Consumer, Received
from services.kit.stream import Stream
from services.notify import application, events, ports
from services.notify.storage import NotifyUnitOfWork
from tollway.billing.v1.events_pb2 import AccountErased

DURABLE = "notify"


def build(
    stream: Stream, engine: AsyncEngine, directory: ports.Directory, *, mail_domain: str, wake: Callable[[], None]
) -> Consumer:
    """`wake` is called when a message waits to be sent."""

    async def handle(event: Received) -> None:
        if await application.believe(event, NotifyUnitOfWork(engine), directory, mail_domain=mail_domain):
            wake()

    async def forget(event: Received) -> None:
        await application.forget(event, events.account_of(event.message), NotifyUnitOfWork(engine))

    handlers = dict.fromkeys(events.HANDLED, handle) | {AccountErased: forget}
    return Consumer(stream, durable=DURABLE, handlers=handlers, is_transient=is_transient)
