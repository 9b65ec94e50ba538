"""Proto ⇄ command for coming in: translation and nothing else."""

from __future__ import annotations

from typing import Any

import grpc

from services.billing import events
from services.billing.application import sign_in
from services.billing.application.context import Context
from services.billing.grpc_identity import session_message
from tollway.billing.v1 import identity_pb2, sign_in_pb2, sign_in_pb2_grpc

Rpc = grpc.aio.ServicerContext[Any, Any]


class SignInService(sign_in_pb2_grpc.SignInServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def RequestSignInLink(  # noqa: N802 - the contract's name
        self, request: sign_in_pb2.RequestSignInLinkRequest, context: Rpc
    ) -> sign_in_pb2.RequestSignInLinkResponse:
        command = sign_in.RequestLink(request.email, request.browser_token, request.remote_address)
        expire_time = await sign_in.request_link(command, self._context)
        return sign_in_pb2.RequestSignInLinkResponse(expire_time=events.timestamp(expire_time))

    async def CheckSignInLink(  # noqa: N802
        self, request: sign_in_pb2.CheckSignInLinkRequest, context: Rpc
    ) -> sign_in_pb2.CheckSignInLinkResponse:
        user = await sign_in.check_link(request.token, request.browser_token, self._context)
        return sign_in_pb2.CheckSignInLinkResponse(email=user.email)

    async def SignInWithLink(  # noqa: N802
        self, request: sign_in_pb2.SignInWithLinkRequest, context: Rpc
    ) -> sign_in_pb2.SignInWithLinkResponse:
        session, token = await sign_in.sign_in_with_link(request.token, request.browser_token, self._context)
        return sign_in_pb2.SignInWithLinkResponse(session=session_message(session), session_token=token)

    async def SignInWithKey(  # noqa: N802
        self, request: sign_in_pb2.SignInWithKeyRequest, context: Rpc
    ) -> sign_in_pb2.SignInWithKeyResponse:
        session, token = await sign_in.sign_in_with_key(request.api_key, request.remote_address, self._context)
        opened = identity_pb2.Session(
            id=session.id,
            create_time=events.timestamp(session.create_time),
            expire_time=events.timestamp(session.expire_time),
        )
        return sign_in_pb2.SignInWithKeyResponse(session=opened, session_token=token)
