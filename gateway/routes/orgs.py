"""Accounts as their people see them: which there are, who belongs to them, and what was changed by whom."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from google.protobuf.json_format import MessageToDict
from pydantic import BaseModel, Field

from gateway.auth import OrgAdmin, OrgMember, presented
from gateway.backend import Services
from gateway.body import Body, Text, json_body
from gateway.headers import IdempotencyKey
from gateway.operations import SESSION, SESSION_TOKEN, operation
from gateway.paging import PageQuery, paged
from gateway.problems import Problem
from gateway.times import rfc3339
from tollway.billing.v1 import audit_pb2, auth_pb2, identity_pb2

router = APIRouter(prefix="/v1/orgs", tags=["orgs"])
_PROBLEMS = ("account_not_found", "session_required", "insufficient_role")
_PRIVATE = {"Cache-Control": "no-store"}


class Org(BaseModel):
    id: str = Field(examples=["acct_019ab0c4d5e67f8899aabbccddeeff00"])
    slug: str = Field(examples=["adas-relay"])
    name: str = Field(examples=["Ada's Relay"])
    role: str | None = Field(description="owner, admin or member; null: an API key has none.", examples=["owner"])


class NewOrg(Body):
    name: Text = Field(min_length=1, max_length=100, examples=["Ada's Relay"])


class Orgs(BaseModel):
    orgs: list[Org]


class Member(BaseModel):
    id: str = Field(examples=["usr_019ab0c4d5e67f8899aabbccddeeff00"])
    email: str = Field(examples=["ada@example.com"])
    role: str = Field(examples=["owner"])
    verified: bool = Field(description="Whether the address was proved to reach the person.")
    joined_at: str = Field(examples=["2026-04-01T00:00:00Z"])


class Members(BaseModel):
    members: list[Member]


class Actor(BaseModel):
    kind: str = Field(description="key, session, outside, operator or system", examples=["session"])
    id: str = Field(examples=["usr_019ab0c4d5e67f8899aabbccddeeff00"])


class AuditEntry(BaseModel):
    id: str = Field(examples=["aud_019ab0c4d5e67f8899aabbccddeeff00"])
    actor: Actor
    action: str = Field(examples=["key.issued"])
    subject: str = Field(description="The id of what was changed.")
    details: dict[str, Any]
    created_at: str = Field(examples=["2026-04-01T00:00:00Z"])
    deleted_at: str = Field(description="When this entry goes; fixed when it was written.")


class AuditLog(BaseModel):
    entries: list[AuditEntry]
    next_page_token: str | None = Field(description="null: this is the last page.")


@router.get("", summary="List your accounts", **operation(credentials=SESSION))
async def list_orgs(
    who: Annotated[identity_pb2.Credential, Depends(presented)], backend: Services, response: Response
) -> Orgs:
    """Those that these credentials have a part in, by slug."""
    answer = await backend.billing.call(backend.identity.ListOrgs, identity_pb2.ListOrgsRequest(credential=who))
    response.headers.update(_PRIVATE)
    return Orgs(orgs=[_org(each) for each in answer.orgs])


@router.post(
    "",
    status_code=201,
    summary="Make another account",
    **operation(
        "session_required",
        "invalid_argument",
        "sign_up_rate_limited",
        body=NewOrg,
        idempotent=True,
        credentials=(SESSION_TOKEN,),
    ),
)
async def create_org(
    who: Annotated[identity_pb2.Credential, Depends(presented)],
    request_id: IdempotencyKey,
    body: Annotated[NewOrg, Depends(json_body(NewOrg))],
    backend: Services,
    response: Response,
) -> Org:
    """On the free tier, owned by the person whose session it is. No key is issued: `POST /v1/orgs/{slug}/keys` does."""
    if not who.session_token:
        raise Problem("session_required")
    asked = identity_pb2.CreateOrgRequest(session_token=who.session_token, name=body.name, request_id=request_id)
    made = (await backend.billing.call(backend.identity.CreateOrg, asked)).org
    response.headers.update(_PRIVATE)
    return _org(made)


@router.get("/{slug}/members", summary="List the members", **operation(*_PROBLEMS, credentials=SESSION))
async def list_members(caller: OrgMember, backend: Services, response: Response) -> Members:
    """Owners first, then admins. People whom an outside issuer vouches for are in its own list, not here."""
    asked = identity_pb2.ListMembersRequest(account_id=caller.account_id)
    answer = await backend.billing.call(backend.identity.ListMembers, asked)
    response.headers.update(_PRIVATE)
    members = [
        Member(
            id=member.user.id,
            email=member.user.email,
            role=_role(member.role) or "",
            verified=member.user.HasField("verify_time"),
            joined_at=rfc3339(member.create_time),
        )
        for member in answer.members
    ]
    return Members(members=members)


@router.get(
    "/{slug}/audit-log",
    summary="Read the audit log",
    **paged(operation(*_PROBLEMS, "invalid_argument", credentials=SESSION)),
)
async def read_audit_log(caller: OrgAdmin, page: PageQuery, backend: Services, response: Response) -> AuditLog:
    """Newest first. How long an entry stays was fixed by the plan of the day it was written."""
    asked = audit_pb2.ListAuditEntriesRequest(account_id=caller.account_id, page_size=page.size, page_token=page.token)
    answer = await backend.billing.call(backend.audit.ListAuditEntries, asked)
    response.headers.update(_PRIVATE)
    entries = [_entry(entry) for entry in answer.entries]
    return AuditLog(entries=entries, next_page_token=answer.next_page_token or None)


def _org(org: identity_pb2.Org) -> Org:
    account = org.account
    return Org(id=account.id, slug=account.slug, name=account.name, role=_role(org.role))


def _entry(entry: audit_pb2.AuditEntry) -> AuditEntry:
    details = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in MessageToDict(entry.details).items()
    }
    kind = auth_pb2.ActorKind.Name(entry.actor.kind).removeprefix("ACTOR_KIND_").lower()
    return AuditEntry(
        id=entry.id,
        actor=Actor(kind=kind, id=entry.actor.id),
        action=entry.action,
        subject=entry.subject,
        details=details,
        created_at=rfc3339(entry.create_time),
        deleted_at=rfc3339(entry.delete_time),
    )


def _role(role: auth_pb2.Role.ValueType) -> str | None:
    name = auth_pb2.Role.Name(role).removeprefix("ROLE_").lower()
    return None if role == auth_pb2.ROLE_UNSPECIFIED else name
