"""Access tokens for API keys, and the public keys to verify them."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from gateway.auth import ApiKey
from gateway.backend import Services
from gateway.operations import API_KEY, operation
from tollway.billing.v1.auth_pb2 import ExchangeTokenRequest

router = APIRouter(tags=["tokens"])
JWKS_AGE_S = 60


class AccessToken(BaseModel):
    access_token: str = Field(description="A JWT (EdDSA).", examples=["eyJhbGciOiJFZERTQSJ9.e30.c2ln"])
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 (RFC 6750's word)
    expires_in: int = Field(description="Seconds.", ge=0, le=3600, examples=[3600])


@router.post(
    "/v1/auth/token",
    summary="Exchange an API key for an access token",
    **operation("api_key_required", credentials=(API_KEY,)),
)
async def exchange_token(key: ApiKey, backend: Services, response: Response) -> AccessToken:
    """The token carries the tier of now and keeps it until it expires."""
    token = await backend.billing.call(backend.auth.ExchangeToken, ExchangeTokenRequest(api_key=key))
    response.headers["Cache-Control"] = "no-store"
    return AccessToken(access_token=token.access_token, expires_in=token.expires_in.seconds)


class PublicKeySet(BaseModel):
    """RFC 7517."""

    keys: list[dict[str, object]]


@router.get(
    "/.well-known/jwks.json",
    response_model=PublicKeySet,
    summary="The public keys of the access tokens",
    **operation("unavailable", "deadline_exceeded"),
)
async def list_public_keys(request: Request) -> Response:
    """Every key that may have signed a token that is still valid, and the next one an hour ahead."""
    return Response(
        await request.app.state.keys.jwks(JWKS_AGE_S),
        headers={"Cache-Control": f"public, max-age={JWKS_AGE_S}"},
        media_type="application/json",
    )
