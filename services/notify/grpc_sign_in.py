"""SignInMailService: the contract's link ⇄ the use case."""

from __future__ import annotations

from typing import Any

import grpc

from services.kit.clock import Clock
from services.kit.times import to_instant
from services.notify import ports, sign_in
from services.notify.domain import Brand
from tollway.notify.v1 import sign_in_pb2 as pb
from tollway.notify.v1 import sign_in_pb2_grpc

FULL_NAME = pb.DESCRIPTOR.services_by_name["SignInMailService"].full_name


class SignInMailServicer(sign_in_pb2_grpc.SignInMailServiceServicer):
    """`sender` is the address mails come from; `clock` the wall's."""

    def __init__(self, mailer: ports.Mailer, sender: str, clock: Clock) -> None:
        self._mailer = mailer
        self._sender = sender
        self._clock = clock

    async def SendSignInLink(  # noqa: N802 - the contract's name
        self, request: pb.SendSignInLinkRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SendSignInLinkResponse:
        brand = request.brand
        link = sign_in.SignInLink(
            recipient=request.recipient,
            url=request.url,
            expire_time=to_instant(request.expire_time, "expire_time"),
            # Such a mail leads nowhere but to its own link.
            brand=Brand(brand.name, brand.support_contact, brand.color, billing_url="", sender=brand.sender),
        )
        await sign_in.send_sign_in_link(link, self._mailer, sender=self._sender, clock=self._clock)
        return pb.SendSignInLinkResponse()
