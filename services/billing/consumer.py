"""Quota's events, as they reach the use cases."""

from __future__ import annotations

from services.billing.application import metering
from services.billing.application.context import Context
from services.kit.database import is_transient
from services.kit.inbox import Consumer, Received
from services.kit.stream import Stream
from tollway.quota.v1 import events_pb2

DURABLE = "billing"


def build(stream: Stream, context: Context) -> Consumer:
    async def learn_usage(event: Received) -> None:
        await metering.learn_usage(event, context)

    return Consumer(
        stream,
        durable=DURABLE,
        handlers={events_pb2.UsageRecorded: learn_usage},
        is_transient=is_transient,
        workers=4,
    )
