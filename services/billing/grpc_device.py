"""Proto ⇄ command for logins of programs: translation and nothing else."""

from __future__ import annotations

from typing import Any

import grpc

from services.billing import events
from services.billing.application import accounts, device_logins
from services.billing.application.context import Context
from services.billing.domain import device_login as domain
from services.billing.domain.device_login import DeviceLogin
from services.billing.grpc_identity import session_message
from tollway.billing.v1 import device_pb2, device_pb2_grpc

Rpc = grpc.aio.ServicerContext[Any, Any]


def _message(login: DeviceLogin, user_code: str) -> device_pb2.DeviceLogin:
    state = device_pb2.DEVICE_LOGIN_STATE_PENDING
    if login.approve_time is not None:
        state = device_pb2.DEVICE_LOGIN_STATE_APPROVED
    elif login.deny_time is not None:
        state = device_pb2.DEVICE_LOGIN_STATE_DENIED
    return device_pb2.DeviceLogin(
        id=login.id,
        user_code=user_code,
        state=state,
        client_name=login.client_name,
        remote_address=login.remote_address,
        create_time=events.timestamp(login.create_time),
        expire_time=events.timestamp(login.expire_time),
    )


class DeviceLoginService(device_pb2_grpc.DeviceLoginServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def CreateDeviceLogin(  # noqa: N802 - the contract's name
        self, request: device_pb2.CreateDeviceLoginRequest, context: Rpc
    ) -> device_pb2.CreateDeviceLoginResponse:
        begun = await device_logins.begin(request.client_name, request.remote_address, self._context)
        page = f"{self._context.settings.public_url}/dash/device"
        answer = device_pb2.CreateDeviceLoginResponse(
            device_code=begun.device_code,
            user_code=begun.user_code,
            verification_uri=page,
            verification_uri_complete=f"{page}?code={begun.user_code}",
        )
        answer.expires_in.FromTimedelta(domain.LIFE)
        answer.interval.FromTimedelta(begun.interval)
        return answer

    async def GetDeviceLogin(  # noqa: N802
        self, request: device_pb2.GetDeviceLoginRequest, context: Rpc
    ) -> device_pb2.GetDeviceLoginResponse:
        found = await device_logins.look(request.user_code, request.session_token, self._context)
        return device_pb2.GetDeviceLoginResponse(device_login=_message(*found))

    async def ApproveDeviceLogin(  # noqa: N802
        self, request: device_pb2.ApproveDeviceLoginRequest, context: Rpc
    ) -> device_pb2.ApproveDeviceLoginResponse:
        found = await device_logins.approve(request.user_code, request.session_token, request.slug, self._context)
        return device_pb2.ApproveDeviceLoginResponse(device_login=_message(*found))

    async def DenyDeviceLogin(  # noqa: N802
        self, request: device_pb2.DenyDeviceLoginRequest, context: Rpc
    ) -> device_pb2.DenyDeviceLoginResponse:
        found = await device_logins.deny(request.user_code, request.session_token, self._context)
        return device_pb2.DenyDeviceLoginResponse(device_login=_message(*found))

    async def PollDeviceLogin(  # noqa: N802
        self, request: device_pb2.PollDeviceLoginRequest, context: Rpc
    ) -> device_pb2.PollDeviceLoginResponse:
        granted = await device_logins.poll(request.device_code, self._context)
        return device_pb2.PollDeviceLoginResponse(
            session=session_message(granted.session),
            session_token=granted.token,
            account=accounts.account_message(granted.account),
        )
