"""Proto ⇄ command for identity, keys and the audit log: translation and nothing else."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from services.billing import events
from services.billing.application import accounts, audit, keys, orgs, principals, sessions
from services.billing.application.context import Context
from services.billing.domain.principal import Actor, ActorKind, Role
from services.billing.storage.audit import AuditEntry
from services.billing.storage.identity import Session, User
from services.kit.errors import InvalidArgument
from tollway.billing.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    auth_pb2,
    identity_pb2,
    identity_pb2_grpc,
    key_pb2,
    key_pb2_grpc,
)

Rpc = grpc.aio.ServicerContext[Any, Any]

_KINDS = {
    auth_pb2.ACTOR_KIND_KEY: ActorKind.KEY,
    auth_pb2.ACTOR_KIND_SESSION: ActorKind.SESSION,
    auth_pb2.ACTOR_KIND_OUTSIDE: ActorKind.OUTSIDE,
    auth_pb2.ACTOR_KIND_OPERATOR: ActorKind.OPERATOR,
    auth_pb2.ACTOR_KIND_SYSTEM: ActorKind.SYSTEM,
}
_ROLES = {auth_pb2.ROLE_OWNER: Role.OWNER, auth_pb2.ROLE_ADMIN: Role.ADMIN, auth_pb2.ROLE_MEMBER: Role.MEMBER}
_KIND_MESSAGES = {kind: number for number, kind in _KINDS.items()}
_ROLE_MESSAGES = {role: number for number, role in _ROLES.items()}


def actor_of(message: auth_pb2.Actor) -> Actor:
    """Raises InvalidArgument naming `actor`: a change that nobody made is not made."""
    kind = _KINDS.get(message.kind)
    if kind is None or not 1 <= len(message.id) <= 255 or not message.id.isprintable():
        raise InvalidArgument("Who acts is expected: a kind and an id.", field="actor")
    return Actor(kind, message.id)


def actor_message(actor: Actor) -> auth_pb2.Actor:
    return auth_pb2.Actor(kind=_KIND_MESSAGES[actor.kind], id=actor.id)


def principal_message(principal: principals.Principal) -> auth_pb2.Principal:
    return auth_pb2.Principal(
        account=accounts.account_message(principal.account),
        key_id=principal.key_id,
        key_kind=principal.key_kind,
        scopes=principal.scopes,
        tier=principal.tier,
        version=principal.version,
        actor=actor_message(principal.actor),
        role=_role_message(principal.role),
        key_revoke_time=events.timestamp(principal.key_revoke_time),
        key_meter=principal.key_meter,
    )


def _role_message(role: Role | None) -> auth_pb2.Role.ValueType:
    return _ROLE_MESSAGES[role] if role is not None else auth_pb2.ROLE_UNSPECIFIED


def _outside(message: identity_pb2.OutsideIdentity) -> principals.Outside:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidArgument("A role is expected.", field="role")
    return principals.Outside(message.issuer, message.external_id, message.subject, role, message.slug)


def _credential(message: identity_pb2.Credential) -> principals.Credential:
    outside = _outside(message.outside) if message.HasField("outside") else None
    return principals.Credential(message.api_key, message.session_token, outside)


def _user_message(user: User) -> identity_pb2.User:
    return identity_pb2.User(id=user.id, email=user.email, verify_time=events.timestamp(user.verify_time))


def session_message(session: Session) -> identity_pb2.Session:
    return identity_pb2.Session(
        id=session.id,
        user=_user_message(session.user),
        create_time=events.timestamp(session.create_time),
        expire_time=events.timestamp(session.expire_time),
    )


class IdentityService(identity_pb2_grpc.IdentityServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def ResolveIdentity(  # noqa: N802 - the contract's name
        self, request: identity_pb2.ResolveIdentityRequest, context: Rpc
    ) -> identity_pb2.ResolveIdentityResponse:
        principal, created = await principals.resolve_outside(_outside(request.identity), self._context)
        return identity_pb2.ResolveIdentityResponse(principal=principal_message(principal), created=created)

    async def AuthorizeOrg(  # noqa: N802
        self, request: identity_pb2.AuthorizeOrgRequest, context: Rpc
    ) -> identity_pb2.AuthorizeOrgResponse:
        principal = await principals.authorize_org(request.slug, _credential(request.credential), self._context)
        return identity_pb2.AuthorizeOrgResponse(principal=principal_message(principal))

    async def ListOrgs(  # noqa: N802
        self, request: identity_pb2.ListOrgsRequest, context: Rpc
    ) -> identity_pb2.ListOrgsResponse:
        found = await principals.list_orgs(_credential(request.credential), self._context)
        listed = [
            identity_pb2.Org(account=accounts.account_message(account), role=_role_message(role))
            for account, role in found
        ]
        return identity_pb2.ListOrgsResponse(orgs=listed)

    async def CreateOrg(  # noqa: N802
        self, request: identity_pb2.CreateOrgRequest, context: Rpc
    ) -> identity_pb2.CreateOrgResponse:
        command = orgs.CreateOrg(request.session_token, request.name, request.request_id)
        return await orgs.create_org(command, self._context)

    async def ListMembers(  # noqa: N802
        self, request: identity_pb2.ListMembersRequest, context: Rpc
    ) -> identity_pb2.ListMembersResponse:
        members = [
            identity_pb2.Member(
                user=_user_message(member.user),
                role=_role_message(member.role),
                create_time=events.timestamp(member.create_time),
            )
            for member in await principals.list_members(request.account_id, self._context)
        ]
        return identity_pb2.ListMembersResponse(members=members)

    async def CreateSession(  # noqa: N802
        self, request: identity_pb2.CreateSessionRequest, context: Rpc
    ) -> identity_pb2.CreateSessionResponse:
        session, token = await sessions.create_session(request.email, self._context)
        return identity_pb2.CreateSessionResponse(session=session_message(session), session_token=token)

    async def ResolveSession(  # noqa: N802
        self, request: identity_pb2.ResolveSessionRequest, context: Rpc
    ) -> identity_pb2.ResolveSessionResponse:
        session = await sessions.resolve_session(request.session_token, self._context)
        return identity_pb2.ResolveSessionResponse(session=session_message(session))

    async def EndSession(  # noqa: N802
        self, request: identity_pb2.EndSessionRequest, context: Rpc
    ) -> identity_pb2.EndSessionResponse:
        await sessions.end_session(request.session_token, self._context)
        return identity_pb2.EndSessionResponse()


class KeyService(key_pb2_grpc.KeyServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def IssueKey(  # noqa: N802
        self, request: key_pb2.IssueKeyRequest, context: Rpc
    ) -> key_pb2.IssueKeyResponse:
        actor = actor_of(request.actor)
        command = keys.IssueKey(request.account_id, actor, request.kind, request.name, request.request_id)
        return await keys.issue_key(command, self._context)

    async def ListKeys(  # noqa: N802
        self, request: key_pb2.ListKeysRequest, context: Rpc
    ) -> key_pb2.ListKeysResponse:
        page = await keys.list_keys(request.account_id, request.page_size, request.page_token, self._context)
        return key_pb2.ListKeysResponse(
            keys=[keys.key_message(key) for key in page.rows], next_page_token=page.next_token
        )

    async def RotateKey(  # noqa: N802
        self, request: key_pb2.RotateKeyRequest, context: Rpc
    ) -> key_pb2.RotateKeyResponse:
        overlap = request.overlap.ToTimedelta() if request.HasField("overlap") else None
        command = keys.RotateKey(
            request.account_id, actor_of(request.actor), request.key_id, overlap, request.request_id
        )
        return await keys.rotate_key(command, self._context)

    async def RevokeKey(  # noqa: N802
        self, request: key_pb2.RevokeKeyRequest, context: Rpc
    ) -> key_pb2.RevokeKeyResponse:
        command = keys.RevokeKey(request.account_id, actor_of(request.actor), request.key_id)
        return key_pb2.RevokeKeyResponse(key=keys.key_message(await keys.revoke_key(command, self._context)))


class AuditService(audit_pb2_grpc.AuditServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def ListAuditEntries(  # noqa: N802
        self, request: audit_pb2.ListAuditEntriesRequest, context: Rpc
    ) -> audit_pb2.ListAuditEntriesResponse:
        page = await audit.list_entries(request.account_id, request.page_size, request.page_token, self._context)
        entries = [_entry_message(entry) for entry in page.rows]
        return audit_pb2.ListAuditEntriesResponse(entries=entries, next_page_token=page.next_token)


def _entry_message(entry: AuditEntry) -> audit_pb2.AuditEntry:
    return audit_pb2.AuditEntry(
        id=entry.id,
        account_id=entry.account_id,
        actor=actor_message(entry.actor),
        action=entry.action,
        subject=entry.subject,
        details=ParseDict(dict(entry.details), Struct()),
        create_time=events.timestamp(entry.create_time),
        delete_time=events.timestamp(entry.delete_time),
    )
