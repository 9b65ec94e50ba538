"""The session that a person, or a program for one, acts with."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from gateway.auth import SESSION_PREFIX, credential
from gateway.backend import Services
from gateway.operations import SESSION_TOKEN, operation
from gateway.problems import Problem
from gateway.times import rfc3339
from tollway.billing.v1 import identity_pb2 as pb

router = APIRouter(prefix="/v1/session", tags=["accounts"])


class Session(BaseModel):
    user_id: str = Field(examples=["usr_019ab0c4d5e67f8899aabbccddeeff00"])
    email: str = Field(examples=["ada@example.com"])
    created_at: str = Field(examples=["2026-04-01T00:00:00Z"])
    expires_at: str = Field(examples=["2026-05-01T00:00:00Z"])


async def _token(request: Request) -> str:
    sent = credential(request)
    if not sent.startswith(SESSION_PREFIX):
        raise Problem("session_required")
    return sent


Token = Annotated[str, Depends(_token)]


@router.get("", summary="See who is signed in", **operation("session_required", credentials=(SESSION_TOKEN,)))
async def read_session(token: Token, backend: Services, response: Response) -> Session:
    """Whose session it is, and until when."""
    answer = await backend.billing.call(backend.identity.ResolveSession, pb.ResolveSessionRequest(session_token=token))
    response.headers["Cache-Control"] = "no-store"
    session = answer.session
    return Session(
        user_id=session.user.id,
        email=session.user.email,
        created_at=rfc3339(session.create_time),
        expires_at=rfc3339(session.expire_time),
    )


@router.delete(
    "", status_code=204, summary="Sign out", **operation("session_required", credentials=(SESSION_TOKEN,), ok=204)
)
async def end_session(token: Token, backend: Services) -> None:
    """From the next request on the token is refused. Ending it again changes nothing."""
    await backend.billing.call(backend.identity.EndSession, pb.EndSessionRequest(session_token=token))
