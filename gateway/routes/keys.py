"""API keys of an account: issue, list, rotate, revoke, by a person who has signed in."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from google.protobuf.duration_pb2 import Duration
from pydantic import BaseModel, Field

from gateway.auth import OrgAdmin, OrgMember
from gateway.backend import Services
from gateway.body import Body, Text, json_body
from gateway.headers import IdempotencyKey
from gateway.operations import SESSION, operation
from gateway.paging import PageQuery, paged
from gateway.times import rfc3339
from services.kit.clock import Clock
from tollway.billing.v1 import key_pb2 as pb

router = APIRouter(prefix="/v1/orgs/{slug}/keys", tags=["keys"])
WEEK_S = 7 * 86_400
_PROBLEMS = ("account_not_found", "session_required", "insufficient_role")
_PRIVATE = {"Cache-Control": "no-store"}


class NewKey(Body):
    kind: Text = Field(min_length=1, max_length=63, description="One of the catalog's.", examples=["live"])
    name: Text = Field(min_length=1, max_length=100, examples=["CI"])


class Rotation(Body):
    overlap_seconds: int | None = Field(
        None, ge=0, le=WEEK_S, description="How long the old key goes on; 24 hours unless said.", examples=[86_400]
    )


class Key(BaseModel):
    id: str = Field(examples=["key_019ab0c4d5e67f8899aabbccddeeff00"])
    kind: str = Field(examples=["live"])
    name: str = Field(examples=["CI"])
    shown: str = Field(description="Enough to tell two keys apart.", examples=["sk_live_4kQ2…x9Zs"])
    status: Literal["active", "ending", "revoked"]
    created_at: str = Field(examples=["2026-04-01T00:00:00Z"])
    revoked_at: str | None = Field(description="From then on it is refused; null: no end is set.")
    successor_id: str | None = Field(description="The key that a rotation issued in its place.")


class IssuedKey(Key):
    api_key: str = Field(description="Shown this once.", examples=["sk_live_…"])


class RotatedKey(IssuedKey):
    replaced: Key = Field(description="The old key; `revoked_at` says how long it goes on.")


class Keys(BaseModel):
    keys: list[Key]
    next_page_token: str | None = Field(description="null: this is the last page.")


@router.get("", summary="List the API keys", **paged(operation(*_PROBLEMS, "invalid_argument", credentials=SESSION)))
async def list_keys(
    caller: OrgMember, page: PageQuery, backend: Services, request: Request, response: Response
) -> Keys:
    """Newest first, revoked ones too. The keys themselves are not shown again."""
    asked = pb.ListKeysRequest(account_id=caller.account_id, page_size=page.size, page_token=page.token)
    answer = await backend.billing.call(backend.keys.ListKeys, asked)
    response.headers.update(_PRIVATE)
    clock: Clock = request.app.state.clock
    return Keys(keys=[_key(key, clock) for key in answer.keys], next_page_token=answer.next_page_token or None)


@router.post(
    "",
    status_code=201,
    summary="Issue an API key",
    **operation(
        *_PROBLEMS,
        "invalid_argument",
        "unknown_key_kind",
        "plan_refused",
        body=NewKey,
        idempotent=True,
        credentials=SESSION,
    ),
)
async def issue_key(
    caller: OrgAdmin,
    request_id: IdempotencyKey,
    body: Annotated[NewKey, Depends(json_body(NewKey))],
    backend: Services,
    request: Request,
    response: Response,
) -> IssuedKey:
    """402 with the catalog's `reason` when the plan does not allow another key of this kind."""
    asked = pb.IssueKeyRequest(
        account_id=caller.account_id, actor=caller.actor, kind=body.kind, name=body.name, request_id=request_id
    )
    answer = await backend.billing.call(backend.keys.IssueKey, asked)
    response.headers.update(_PRIVATE)
    return IssuedKey(**vars(_key(answer.key, request.app.state.clock)), api_key=answer.api_key)


@router.post(
    "/{key_id}/rotate",
    status_code=201,
    summary="Rotate an API key",
    **operation(
        *_PROBLEMS,
        "key_not_found",
        "key_ended",
        body=Rotation,
        body_required=False,
        idempotent=True,
        credentials=SESSION,
    ),
)
async def rotate_key(
    key_id: str,
    caller: OrgAdmin,
    request_id: IdempotencyKey,
    body: Annotated[Rotation, Depends(json_body(Rotation, optional=True))],
    backend: Services,
    request: Request,
    response: Response,
) -> RotatedKey:
    """A new key of the same kind and name; the old one goes on for the overlap, and is refused after it."""
    overlap = Duration(seconds=body.overlap_seconds) if body.overlap_seconds is not None else None
    asked = pb.RotateKeyRequest(
        account_id=caller.account_id, actor=caller.actor, key_id=key_id[:100], overlap=overlap, request_id=request_id
    )
    answer = await backend.billing.call(backend.keys.RotateKey, asked)
    response.headers.update(_PRIVATE)
    clock: Clock = request.app.state.clock
    return RotatedKey(**vars(_key(answer.key, clock)), api_key=answer.api_key, replaced=_key(answer.replaced, clock))


@router.delete("/{key_id}", summary="Revoke an API key", **operation(*_PROBLEMS, "key_not_found", credentials=SESSION))
async def revoke_key(key_id: str, caller: OrgAdmin, backend: Services, request: Request, response: Response) -> Key:
    """Refused from the next request on, for ever. Revoking it again changes nothing."""
    asked = pb.RevokeKeyRequest(account_id=caller.account_id, actor=caller.actor, key_id=key_id[:100])
    answer = await backend.billing.call(backend.keys.RevokeKey, asked)
    response.headers.update(_PRIVATE)
    return _key(answer.key, request.app.state.clock)


def _key(key: pb.Key, clock: Clock) -> Key:
    ends = key.HasField("revoke_time")
    status: Literal["active", "ending", "revoked"] = "active"
    if ends:
        status = "revoked" if key.revoke_time.ToNanoseconds() <= clock.now().timestamp() * 1e9 else "ending"
    return Key(
        id=key.id,
        kind=key.kind,
        name=key.name,
        shown=key.shown,
        status=status,
        created_at=rfc3339(key.create_time),
        revoked_at=rfc3339(key.revoke_time) if ends else None,
        successor_id=key.successor_id or None,
    )
