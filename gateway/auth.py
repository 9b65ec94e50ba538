"""Who calls: an API key, resolved by billing on every request, or an access token, verified here."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from gateway import facts
from gateway.backend import Backend
from gateway.problems import insufficient_scope, unauthenticated
from gateway.tokens import looks_like_token, verify
from tollway.billing.v1.auth_pb2 import AuthenticateRequest

# The longest catalog prefix, the random part and the checksum fit; the rest needs no lookup.
_KEY = re.compile(r"[A-Za-z0-9_]{16,128}")


@dataclass(frozen=True)
class Caller:
    account_id: str
    scopes: frozenset[str]
    key_id: str = ""  # the API key itself, or the one that an access token was exchanged for

    def must(self, scope: str) -> None:
        """Raises 403 insufficient_scope."""
        if scope not in self.scopes:
            raise insufficient_scope(scope)


def bearer(values: list[str]) -> str:
    """The credential of one `Authorization: Bearer …` header; the scheme in any case (RFC 9110, section 11.1)."""
    if not values:
        raise unauthenticated()
    scheme, _, credential = values[0].partition(" ")
    credential = credential.strip()
    if len(values) > 1 or scheme.lower() != "bearer" or not credential or " " in credential:
        raise unauthenticated("authorization_malformed")
    return credential


def _credential(request: Request) -> str:
    return bearer(request.headers.getlist("authorization"))


async def _by_key(request: Request, backend: Backend, key: str) -> Caller:
    if not _KEY.fullmatch(key):
        raise unauthenticated("api_key_malformed")
    answer = await backend.billing.call(backend.auth.Authenticate, AuthenticateRequest(api_key=key))
    principal = answer.principal
    facts.of(request.scope).account_id = principal.account.id
    return Caller(principal.account.id, frozenset(principal.scopes), principal.key_id)


async def api_key(request: Request) -> str:
    """A dependency: the API key as it was sent, well-formed but not yet looked up."""
    credential = _credential(request)
    if looks_like_token(credential):
        raise unauthenticated("api_key_required")
    if not _KEY.fullmatch(credential):
        raise unauthenticated("api_key_malformed")
    return credential


def caller(scope: str, *, tokens: bool) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency: the caller, who has `scope`. `tokens`: access tokens count too, not only API keys."""

    async def resolve(request: Request) -> Caller:
        state = request.app.state
        if not tokens:
            found = await _by_key(request, state.backend, await api_key(request))
        else:
            credential = _credential(request)
            if looks_like_token(credential):
                token = await verify(credential, state.keys, state.public_url)
                facts.of(request.scope).account_id = token.account_id
                found = Caller(token.account_id, token.scopes, token.key_id)
            else:
                found = await _by_key(request, state.backend, credential)
        found.must(scope)
        return found

    return resolve


ApiKey = Annotated[str, Depends(api_key)]
Biller = Annotated[Caller, Depends(caller("billing", tokens=False))]
User = Annotated[Caller, Depends(caller("usage", tokens=True))]
