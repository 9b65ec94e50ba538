"""Sign-up: an account on the free tier and its first API key, with no card."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from gateway.backend import Services
from gateway.body import Body, Text, json_body
from gateway.headers import IdempotencyKey, RemoteAddress
from gateway.operations import operation
from tollway.billing.v1.account_pb2 import CreateAccountRequest

router = APIRouter(tags=["accounts"])


class SignUp(Body):
    email: Text = Field(min_length=3, max_length=254, examples=["ada@example.com"])
    name: Text = Field(min_length=1, max_length=100, examples=["Ada's Relay"])


class Account(BaseModel):
    id: str = Field(examples=["acct_019ab0c4d5e67f8899aabbccddeeff00"])
    slug: str = Field(examples=["adas-relay"])
    name: str = Field(examples=["Ada's Relay"])
    email: str = Field(examples=["ada@example.com"])


class SignedUp(BaseModel):
    account: Account
    api_key: str = Field(description="Shown this once.", examples=["sk_live_…"])


@router.post(
    "/v1/signup",
    status_code=201,
    summary="Sign up",
    **operation("invalid_argument", "sign_up_rate_limited", "unavailable", body=SignUp, idempotent=True),
)
async def sign_up(
    request_id: IdempotencyKey,
    body: Annotated[SignUp, Depends(json_body(SignUp))],
    address: RemoteAddress,
    backend: Services,
    response: Response,
) -> SignedUp:
    """Creates an account on the free tier. The API key in the answer is not shown again."""
    made = await backend.billing.call(
        backend.accounts.CreateAccount,
        CreateAccountRequest(email=body.email, name=body.name, request_id=request_id, remote_address=address),
    )
    response.headers["Cache-Control"] = "no-store"
    account = made.account
    return SignedUp(
        account=Account(id=account.id, slug=account.slug, name=account.name, email=account.email),
        api_key=made.api_key,
    )
