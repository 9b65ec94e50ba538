"""Quota over gRPC: ports.Usage."""

from __future__ import annotations

from services.billing.ports import Counted
from services.kit.rpc import Link
from tollway.quota.v1 import quota_pb2, quota_pb2_grpc


class QuotaLink:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._stub = quota_pb2_grpc.QuotaServiceStub(link.channel)

    async def counted(self, account_id: str, limit: str) -> Counted:
        answer = await self._link.call(self._stub.GetUsage, quota_pb2.GetUsageRequest(account_id=account_id))
        # A limit that spans several meters shows the same count with each of them.
        states = [state.used for meter in answer.meters for state in meter.limits if state.name == limit]
        return Counted(version=answer.version, used=max(states) if states else None)

    async def used(self, account_id: str) -> dict[str, int]:
        answer = await self._link.call(self._stub.GetUsage, quota_pb2.GetUsageRequest(account_id=account_id))
        return {state.name: state.used for meter in answer.meters for state in meter.limits}

    async def close(self) -> None:
        await self._link.close()
