"""Who calls: an API key or a session, resolved by billing on every request; an access token or an outside issuer's,
verified here; or the operator. Every one of them is a `Caller`."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from gateway import facts
from gateway.backend import Backend
from gateway.problems import Problem, insufficient_scope, unauthenticated
from gateway.tokens import looks_like_token, verify
from tollway.billing.v1 import auth_pb2 as pb
from tollway.billing.v1 import identity_pb2

# The longest catalog prefix, the random part and the checksum fit; the rest needs no lookup.
_KEY = re.compile(r"[A-Za-z0-9_]{16,128}")
LONGEST_SLUG = 100


SESSION_PREFIX = "ses_"  # no API key begins so
_RANK = {pb.ROLE_MEMBER: 1, pb.ROLE_ADMIN: 2, pb.ROLE_OWNER: 3}


@dataclass(frozen=True)
class Caller:
    account_id: str  # empty: the operator, who belongs to none
    scopes: frozenset[str]
    key_id: str = ""  # the API key itself, or the one that an access token was exchanged for
    actor: pb.Actor = field(default_factory=pb.Actor)  # what changes are recorded under
    role: pb.Role.ValueType = pb.ROLE_UNSPECIFIED  # of a person; a key has scopes instead
    slug: str = ""
    key_kind: str = ""
    key_meter: str = ""  # the one that requests with this kind of key drive, if the catalog names one

    def billing_page(self, public_url: str) -> str:
        """Where its people buy more; they choose the account there, when an old token does not tell which it is."""
        return f"{public_url}/dash/{self.slug}/billing" if self.slug else f"{public_url}/dash"

    def must(self, scope: str) -> None:
        """Raises 403 insufficient_scope."""
        if scope not in self.scopes:
            raise insufficient_scope(scope)

    def must_be(self, role: pb.Role.ValueType) -> None:
        """Raises 403: session_required for a key, insufficient_role for a person of a lesser role."""
        if self.role == pb.ROLE_UNSPECIFIED:
            raise Problem("session_required")
        if _RANK[self.role] < _RANK[role]:
            name = pb.Role.Name(role).removeprefix("ROLE_").lower()
            raise Problem("insufficient_role", f"This takes the role {name} in the account.", role=name)


def of_principal(principal: pb.Principal, request: Request) -> Caller:
    facts.of(request.scope).account_id = principal.account.id
    return Caller(
        account_id=principal.account.id,
        scopes=frozenset(principal.scopes),
        key_id=principal.key_id,
        actor=principal.actor,
        role=principal.role,
        slug=principal.account.slug,
        key_kind=principal.key_kind,
        key_meter=principal.key_meter,
    )


def bearer(values: list[str]) -> str:
    """The credential of one `Authorization: Bearer …` header; the scheme in any case (RFC 9110, section 11.1)."""
    if not values:
        raise unauthenticated()
    scheme, _, credential = values[0].partition(" ")
    credential = credential.strip()
    if len(values) > 1 or scheme.lower() != "bearer" or not credential or " " in credential:
        raise unauthenticated("authorization_malformed")
    return credential


def credential(request: Request) -> str:
    """What the request was sent with. Raises 401."""
    return bearer(request.headers.getlist("authorization"))


async def _by_key(request: Request, backend: Backend, key: str) -> Caller:
    if not _KEY.fullmatch(key):
        raise unauthenticated("api_key_malformed")
    answer = await backend.billing.call(backend.auth.Authenticate, pb.AuthenticateRequest(api_key=key))
    return of_principal(answer.principal, request)


async def api_key(request: Request) -> str:
    """A dependency: the API key as it was sent, well-formed but not yet looked up."""
    sent = credential(request)
    if looks_like_token(sent):
        raise unauthenticated("api_key_required")
    if not _KEY.fullmatch(sent):
        raise unauthenticated("api_key_malformed")
    return sent


def caller(scope: str, *others: str, tokens: bool) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency: the caller, who has `scope` or one of the others. `tokens`: access tokens count too, not only API
    keys.
    """

    async def resolve(request: Request) -> Caller:
        state = request.app.state
        if not tokens:
            found = await _by_key(request, state.backend, await api_key(request))
        else:
            sent = credential(request)
            if looks_like_token(sent):
                token = await verify(sent, state.keys, state.public_url)
                facts.of(request.scope).account_id = token.account_id
                actor = pb.Actor(kind=pb.ACTOR_KIND_KEY, id=token.key_id)
                found = Caller(token.account_id, token.scopes, token.key_id, actor, slug=token.slug)
            else:
                found = await _by_key(request, state.backend, sent)
        if found.scopes.isdisjoint(others):
            found.must(scope)
        return found

    return resolve


async def presented(request: Request) -> identity_pb2.Credential:
    """What a person, or a program for one, acts with: a session, a verified outside token, or an API key."""
    sent = credential(request)
    if looks_like_token(sent):
        return identity_pb2.Credential(outside=await _outside(request, sent))
    if sent.startswith(SESSION_PREFIX):
        return identity_pb2.Credential(session_token=sent)
    if not _KEY.fullmatch(sent):
        raise unauthenticated("api_key_malformed")
    return identity_pb2.Credential(api_key=sent)


async def _outside(request: Request, sent: str) -> identity_pb2.OutsideIdentity:
    token = await request.app.state.outside.verify(sent)
    return identity_pb2.OutsideIdentity(
        issuer=token.issuer,
        external_id=token.external_id,
        subject=token.subject,
        role=token.role,
        slug=token.slug,
    )


def outsider(role: pb.Role.ValueType) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency: a person whom the outside issuer vouches for, who has at least this role in the account. The
    account is made on first sight."""

    async def resolve(request: Request) -> Caller:
        if "authorization" not in request.headers:
            raise unauthenticated(detail="Send a token of your identity provider: Authorization: Bearer eyJ…")
        sent = credential(request)
        if not looks_like_token(sent):
            raise unauthenticated("token_required")
        identity = await _outside(request, sent)
        backend: Backend = request.app.state.backend
        asked = identity_pb2.ResolveIdentityRequest(identity=identity)
        answer = await backend.billing.call(backend.identity.ResolveIdentity, asked)
        found = of_principal(answer.principal, request)
        found.must_be(role)
        return found

    return resolve


def in_org(
    role: pb.Role.ValueType, *, scope: str = "", others: tuple[str, ...] = ()
) -> Callable[[Request, str], Awaitable[Caller]]:
    """A dependency for routes under `/v1/orgs/{slug}`: somebody who has at least this role in that account, or, with
    `scope`, one of its API keys that has it or one of the others. Anybody else hears of no such account."""
    enough = frozenset((scope, *others)) - {""}

    async def resolve(request: Request, slug: str) -> Caller:
        who = await presented(request)
        backend: Backend = request.app.state.backend
        asked = identity_pb2.AuthorizeOrgRequest(slug=slug[:LONGEST_SLUG], credential=who)
        answer = await backend.billing.call(backend.identity.AuthorizeOrg, asked)
        found = of_principal(answer.principal, request)
        if enough.isdisjoint(found.scopes):
            found.must_be(role)
        return found

    return resolve


async def operator(request: Request) -> Caller:
    """A dependency: the caller is the operator. 403 operator_disabled where none is set up, 401 for another token."""
    sent = credential(request)
    expected: str = request.app.state.operator_token
    if not expected:
        raise Problem("operator_disabled")
    # In constant time: an answer that comes sooner must not tell how much of a guess was right.
    if not hmac.compare_digest(sent.encode(), expected.encode()):
        raise unauthenticated("operator_token_invalid")
    return Caller("", frozenset({"operator"}), actor=pb.Actor(kind=pb.ACTOR_KIND_OPERATOR, id="operator"))


ApiKey = Annotated[str, Depends(api_key)]
Biller = Annotated[Caller, Depends(caller("billing", tokens=False))]
User = Annotated[Caller, Depends(caller("usage", tokens=True))]
UsageReader = Annotated[Caller, Depends(caller("usage", "status", tokens=True))]
Downloader = Annotated[Caller, Depends(caller("download", tokens=False))]
OutsideBiller = Annotated[Caller, Depends(outsider(pb.ROLE_ADMIN))]  # CONTRACT: billing needs the admin role
OrgMember = Annotated[Caller, Depends(in_org(pb.ROLE_MEMBER))]
OrgAdmin = Annotated[Caller, Depends(in_org(pb.ROLE_ADMIN))]
OrgReader = Annotated[Caller, Depends(in_org(pb.ROLE_MEMBER, scope="status"))]
OrgBiller = Annotated[Caller, Depends(in_org(pb.ROLE_ADMIN, scope="billing"))]
Operator = Annotated[Caller, Depends(operator)]
