"""Notify over gRPC: ports.SignInMail."""

from __future__ import annotations

from services.billing import events
from services.billing.ports import SignInLink
from services.kit.rpc import Link
from tollway.notify.v1 import sign_in_pb2, sign_in_pb2_grpc

_PATIENCE_S = 30.0  # the mail server's, within the call


class NotifyLink:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._stub = sign_in_pb2_grpc.SignInMailServiceStub(link.channel)

    async def send(self, link: SignInLink) -> None:
        brand = sign_in_pb2.SignInBrand(
            name=link.brand.name,
            color=link.brand.color,
            support_contact=link.brand.support_contact,
            sender=link.brand.sender,
        )
        request = sign_in_pb2.SendSignInLinkRequest(
            recipient=link.recipient, url=link.url, expire_time=events.timestamp(link.expire_time), brand=brand
        )
        await self._link.call(self._stub.SendSignInLink, request, timeout_s=_PATIENCE_S)

    async def close(self) -> None:
        await self._link.close()
