"""Who looks at a page: the session of the cookie, and what it may do in an account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from gateway.auth import LONGEST_SLUG, Caller, of_principal
from gateway.backend import Backend
from gateway.pages import cookies, forms
from gateway.problems import Problem
from tollway.billing.v1 import account_pb2, auth_pb2, billing_pb2, identity_pb2

_NOT_YOURS = "What you signed in with may look at this account and may not do this. Ask one of its owners."
_ADMINS = frozenset({auth_pb2.ROLE_ADMIN, auth_pb2.ROLE_OWNER})


class SignInNeeded(Exception):
    """Nobody is signed in."""


@dataclass(frozen=True)
class Visit:
    """A person, or an API key, in an account, and what they may do there: what is not offered is refused, too."""

    session: str
    caller: Caller
    account: account_pb2.Account

    @property
    def form_token(self) -> str:
        return forms.token(self.session)

    @property
    def path(self) -> str:
        """The account's billing page."""
        return f"/dash/{self.account.slug}/billing"

    @property
    def may_bill(self) -> bool:
        """Buy, manage, cancel, set caps, see invoices."""
        return self.caller.role in _ADMINS or "billing" in self.caller.scopes

    @property
    def may_issue_keys(self) -> bool:
        return self.caller.role in _ADMINS

    @property
    def may_see_keys(self) -> bool:
        return self.caller.role != auth_pb2.ROLE_UNSPECIFIED

    @property
    def may_refund(self) -> bool:
        return self.caller.role == auth_pb2.ROLE_OWNER

    def must(self, allowed: bool) -> None:
        """Raises permission_denied."""
        if not allowed:
            raise Problem("permission_denied", _NOT_YOURS)


def credential(request: Request) -> identity_pb2.Credential:
    """Raises SignInNeeded without a session."""
    token = cookies.session(request)
    if not token:
        raise SignInNeeded
    return identity_pb2.Credential(session_token=token)


async def in_account(request: Request, slug: str) -> Visit:
    """Raises SignInNeeded; account_not_found for an account that is unknown or somebody else's."""
    backend: Backend = request.app.state.backend
    asked = identity_pb2.AuthorizeOrgRequest(slug=slug[:LONGEST_SLUG], credential=credential(request))
    answer = await backend.billing.call(backend.identity.AuthorizeOrg, asked)
    caller = of_principal(answer.principal, request)
    return Visit(cookies.session(request), caller, answer.principal.account)


async def posting(request: Request, slug: str) -> tuple[Visit, forms.Form]:
    """The same for a form. Raises form_foreign."""
    session = cookies.session(request)
    if not session:
        raise SignInNeeded
    form = await forms.read(request, session)
    return await in_account(request, slug), form


async def shop_of(request: Request) -> billing_pb2.ListPlansResponse:
    """What the seller sells, and how it shows itself."""
    backend: Backend = request.app.state.backend
    return await backend.billing.call(backend.plans.ListPlans, billing_pb2.ListPlansRequest())


Visiting = Annotated[Visit, Depends(in_account)]
Posting = Annotated[tuple[Visit, forms.Form], Depends(posting)]
