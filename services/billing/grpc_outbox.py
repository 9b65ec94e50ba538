"""Proto ⇄ command for events that are told again: translation and nothing else."""

from __future__ import annotations

from typing import Any

import grpc

from services.billing.application import outbox
from services.billing.application.context import Context
from services.kit.times import to_instant
from tollway.billing.v1 import outbox_pb2 as pb
from tollway.billing.v1 import outbox_pb2_grpc

Rpc = grpc.aio.ServicerContext[Any, Any]


class OutboxService(outbox_pb2_grpc.OutboxServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def RepublishEvents(  # noqa: N802 - the contract's name
        self, request: pb.RepublishEventsRequest, context: Rpc
    ) -> pb.RepublishEventsResponse:
        since = to_instant(request.since, "since") if request.HasField("since") else None
        done = await outbox.republish(since, request.page_token, self._context)
        return pb.RepublishEventsResponse(events=done.count, next_page_token=done.next_token)

    async def AnnounceSnapshots(  # noqa: N802
        self, request: pb.AnnounceSnapshotsRequest, context: Rpc
    ) -> pb.AnnounceSnapshotsResponse:
        accounts, token = await outbox.announce_snapshots(request.page_token, self._context)
        return pb.AnnounceSnapshotsResponse(accounts=accounts, next_page_token=token)
