"""The application: routes, one handler for every refusal, the boundary around it all."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from secrets import token_urlsafe

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from gateway import etags, openapi, problems
from gateway.backend import Backend
from gateway.boundary import Boundary
from gateway.dialects import manashiki, skytale, vatly
from gateway.keyset import KeySet
from gateway.outside import OutsideTokens
from gateway.pages import dash, rendering
from gateway.pages import errors as page_errors
from gateway.pages import routes as pages
from gateway.pages.visits import SignInNeeded
from gateway.reference import page as reference
from gateway.routes import (
    caps,
    device,
    downloads,
    health,
    invoices,
    keys,
    operator,
    operator_accounts,
    operator_customers,
    operator_events,
    operator_messages,
    operator_stripe,
    org_billing,
    orgs,
    plans,
    refunds,
    session,
    signup,
    subscriptions,
    tokens,
    usage,
    webhooks,
)
from gateway.settings import GatewaySettings, parse_networks
from gateway.signed_urls import Signer
from gateway.tokens import public_keys
from services.kit.clock import BusinessClock
from services.kit.errors import TollwayError
from tollway.billing.v1.auth_pb2 import GetJwksRequest

_ROUTERS = (
    usage.router,  # first: routes are tried in order, and this one is asked most
    downloads.router,
    skytale.router,
    manashiki.router,
    vatly.router,
    health.router,
    signup.router,
    tokens.router,
    device.router,
    session.router,
    plans.router,
    webhooks.router,
    orgs.router,
    org_billing.router,
    keys.router,
    caps.router,
    invoices.router,
    operator.router,
    operator_accounts.router,
    operator_messages.router,
    operator_stripe.router,
    operator_customers.router,
    operator_events.router,
    refunds.router,
    subscriptions.router,
    pages.router,
    *dash.ROUTERS,
)


def _methods() -> dict[str, list[str]]:
    """Path → methods, for the Allow header: the framework knows only those of one function."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for router in _ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute):
                methods = route.methods or set()
                found[route.path] |= methods | ({"HEAD"} if "GET" in methods else set())
    return {path: sorted(methods) for path, methods in found.items()} | {
        path: ["GET", "HEAD"] for path in ("/openapi.json", "/docs")
    }


def create(settings: GatewaySettings, backend: Backend) -> FastAPI:
    """The ASGI application. The caller closes `backend`."""

    async def fetch_jwks() -> str:
        answer = await backend.billing.call(backend.auth.GetJwks, GetJwksRequest())
        return answer.jwks_json

    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,  # the names that generated clients have
    )
    app.state.backend = backend
    app.state.public_url = settings.public_url
    operator_token = settings.operator_token
    app.state.operator_token = operator_token.get_secret_value() if operator_token else ""
    secret = settings.secret_key
    app.state.signer = Signer(settings.public_url, secret.get_secret_value() if secret else token_urlsafe())
    app.state.trusted_proxies = parse_networks(settings.trusted_proxies)
    app.state.clock = BusinessClock(settings.clock_file)
    app.state.outside = OutsideTokens(settings)
    app.state.keys = KeySet(fetch_jwks, public_keys)
    app.state.page_policy = rendering.policy(settings.page_origins)
    app.state.methods = _methods()
    for router in _ROUTERS:
        app.include_router(router)
    for kind in (problems.Problem, TollwayError, HTTPException, RequestValidationError, SignInNeeded):
        app.add_exception_handler(kind, page_errors.answer)
    app.add_middleware(Boundary, public_url=settings.public_url)
    described = openapi.document(app, settings.public_url)

    document = json.dumps(described, separators=(",", ":")).encode()

    @cache
    def page() -> bytes:
        return reference.render(described).encode()

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi_json(request: Request) -> Response:
        return etags.answer(request, document, "application/json", {"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return etags.answer(request, page(), "text/html; charset=utf-8", reference.HEADERS)

    return app
