"""Billing over gRPC: ports.Entitlements and ports.Authority."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

import structlog

from services.kit.errors import Unauthenticated
from services.kit.rpc import Link
from services.quota.errors import ApiKeyRefused
from services.quota.events import Snapshot, to_snapshot
from services.quota.ports import KeyOwner
from tollway.billing.v1 import auth_pb2, auth_pb2_grpc, entitlement_pb2, entitlement_pb2_grpc

PAGE = 500

log = structlog.get_logger(__name__)


class BillingLink:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._stub = entitlement_pb2_grpc.EntitlementServiceStub(link.channel)
        self._auth = auth_pb2_grpc.AuthServiceStub(link.channel)

    async def get(self, account_ids: Sequence[str]) -> list[Snapshot]:
        request = entitlement_pb2.BatchGetEntitlementsRequest(account_ids=account_ids)
        answer = await self._link.call(self._stub.BatchGetEntitlements, request)
        return [to_snapshot(message) for message in answer.entitlements]

    async def changed_since(self, token: str) -> tuple[list[Snapshot], str, bool]:
        request = entitlement_pb2.ListEntitlementsRequest(page_size=PAGE, page_token=token)
        answer = await self._link.call(self._stub.ListEntitlements, request)
        snapshots = []
        for message in answer.entitlements:
            try:
                snapshots.append(to_snapshot(message))
            except ValueError as error:
                # One that this release cannot read must not stop the others for ever.
                log.error("heal.unreadable", account=message.account_id, error=str(error))
        return snapshots, answer.next_page_token, answer.has_more

    async def authenticate(self, api_key: str) -> KeyOwner:
        try:
            answer = await self._link.call(self._auth.Authenticate, auth_pb2.AuthenticateRequest(api_key=api_key))
        except Unauthenticated as error:
            # Else it was our own token that billing refused, which says nothing of the key.
            if error.error_reason.startswith("API_KEY_"):
                raise ApiKeyRefused(error.message, reason=error.error_reason) from None
            raise
        principal = answer.principal
        end = principal.key_revoke_time.ToDatetime(UTC) if principal.HasField("key_revoke_time") else None
        return KeyOwner(principal.account.id, principal.key_id, principal.key_kind, end)
