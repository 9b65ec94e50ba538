"""Proto ⇄ use cases of tollway.quota.v1.OutboxService."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from services.kit.database import UnitOfWork
from services.kit.times import to_instant
from tollway.quota.v1 import outbox_pb2, outbox_pb2_grpc

FULL_NAME = outbox_pb2.DESCRIPTOR.services_by_name["OutboxService"].full_name

_Context = grpc.aio.ServicerContext[Any, Any]


class OutboxServicer(outbox_pb2_grpc.OutboxServiceServicer):
    def __init__(self, new_uow: Callable[[], UnitOfWork]) -> None:
        self._new_uow = new_uow

    async def RepublishEvents(  # noqa: N802
        self, request: outbox_pb2.RepublishEventsRequest, context: _Context
    ) -> outbox_pb2.RepublishEventsResponse:
        since = to_instant(request.since, "since") if request.HasField("since") else None
        async with self._new_uow() as uow:
            done = await uow.outbox.republish(since, request.page_token)
            await uow.commit()
        return outbox_pb2.RepublishEventsResponse(events=done.count, next_page_token=done.next_token)
