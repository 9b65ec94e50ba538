"""Signing in a program that has no browser of its own: codes as in RFC 8628, over JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from gateway.backend import Services
from gateway.body import Body, Text, json_body
from gateway.headers import RemoteAddress
from gateway.operations import operation
from gateway.problems import Problem, seconds
from gateway.routes.signup import Account
from services.kit.errors import FailedPrecondition
from tollway.billing.v1 import device_pb2 as pb

router = APIRouter(prefix="/v1/device", tags=["accounts"])
GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_PENDING = ("authorization_pending", "slow_down", "access_denied", "expired_token", "invalid_grant")
_PRIVATE = {"Cache-Control": "no-store"}


class Program(Body):
    client_name: Text = Field(
        "", max_length=100, description="Shown to the person who approves.", examples=["tollway on ada-laptop"]
    )


class DeviceCode(BaseModel):
    device_code: str = Field(description="Shown this once; poll with it.", examples=["dvc_…"])
    user_code: str = Field(examples=["WDJB-MJHT"])
    verification_uri: str = Field(examples=["https://api.example.com/dash/device"])
    verification_uri_complete: str = Field(examples=["https://api.example.com/dash/device?code=WDJB-MJHT"])
    expires_in: int = Field(description="Seconds.", examples=[600])
    interval: int = Field(description="Seconds between two polls.", examples=[5])


class Poll(Body):
    device_code: Text = Field(min_length=1, max_length=200, examples=["dvc_…"])
    grant_type: Literal["urn:ietf:params:oauth:grant-type:device_code"] | None = Field(
        None, description="RFC 8628's; may be left out."
    )


class Granted(BaseModel):
    access_token: str = Field(description="A session's: `ses_…`. Shown this once.", examples=["ses_…"])
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 (RFC 6750's word)
    expires_in: int = Field(description="Seconds.", examples=[2_592_000])
    email: str = Field(description="Of the person who approved.", examples=["ada@example.com"])
    account: Account = Field(description="The one that was chosen at approval.")


@router.post(
    "/code",
    summary="Ask for a code",
    **operation(
        "invalid_argument",
        "device_login_rate_limited",
        "unavailable",
        "deadline_exceeded",
        body=Program,
        body_required=False,
    ),
)
async def create_device_code(
    body: Annotated[Program, Depends(json_body(Program, optional=True))],
    address: RemoteAddress,
    backend: Services,
    response: Response,
) -> DeviceCode:
    """Show the person `user_code` and `verification_uri`, and poll with `device_code`."""
    asked = pb.CreateDeviceLoginRequest(client_name=body.client_name, remote_address=address)
    made = await backend.billing.call(backend.devices.CreateDeviceLogin, asked)
    response.headers.update(_PRIVATE)
    return DeviceCode(
        device_code=made.device_code,
        user_code=made.user_code,
        verification_uri=made.verification_uri,
        verification_uri_complete=made.verification_uri_complete,
        expires_in=made.expires_in.seconds,
        interval=made.interval.seconds,
    )


@router.post(
    "/token",
    summary="Poll for the session",
    **operation(*_PENDING, "unavailable", "deadline_exceeded", body=Poll),
)
async def poll_device_token(
    body: Annotated[Poll, Depends(json_body(Poll))], backend: Services, response: Response
) -> Granted:
    """400 with the `error` of RFC 8628, section 3.5, until the person has decided. The session comes once."""
    asked = pb.PollDeviceLoginRequest(device_code=body.device_code)
    try:
        granted = await backend.billing.call(backend.devices.PollDeviceLogin, asked)
    except FailedPrecondition as error:
        code = error.error_reason.lower()
        headers = {"Retry-After": seconds(error.retry_after)} if error.retry_after is not None else {}
        raise Problem(code, error.message, status=400, headers=headers, error=code) from None
    response.headers.update(_PRIVATE)
    account, session = granted.account, granted.session
    return Granted(
        access_token=granted.session_token,
        expires_in=session.expire_time.seconds - session.create_time.seconds,
        email=session.user.email,
        account=Account(id=account.id, slug=account.slug, name=account.name, email=account.email),
    )
