"""Billing's events, as they reach the use cases."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from google.protobuf.message import DecodeError

from services.kit.database import is_transient
from services.kit.inbox import Consumer, Received
from services.kit.stream import Stream
from services.quota import application, keys
from services.quota.storage import QuotaUnitOfWork
from tollway.billing.v1 import events_pb2

DURABLE = "quota"

log = structlog.get_logger(__name__)


def build(stream: Stream, new_uow: Callable[[], QuotaUnitOfWork]) -> Consumer:
    async def handle(event: Received) -> None:
        await application.believe(event, new_uow())

    async def learn_key(event: Received) -> None:
        await keys.learn(event, new_uow())

    return Consumer(
        stream,
        durable=DURABLE,
        handlers={
            events_pb2.EntitlementsChanged: handle,
            events_pb2.KeyIssued: learn_key,
            events_pb2.KeyRevoked: learn_key,
        },
        is_transient=is_transient,
    )


async def overhear(stream: Stream, ring: keys.KeyRing) -> None:
    """Until cancelled: a key's end reaches this process's memory, whichever process consumes the event."""

    def heard(data: bytes) -> None:
        try:
            ring.hear(events_pb2.KeyRevoked.FromString(data))
        except DecodeError:
            log.warning("keys.unreadable_event", bytes=len(data))

    await stream.overhear(f"tollway.billing.{events_pb2.KeyRevoked.DESCRIPTOR.name}.*", heard)
