"""The web application: the API under `/v1/`, the pages people see, and the sandbox's own controls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route

from . import challenge_page, checkout_page, control, dashboard, invoice_page, portal_change_page, portal_page
from .api import Api
from .sandbox import Sandbox, Settings

_PORTAL = "/p/session/{session}/{token}"
_INVOICE = "/i/{invoice}/{token}"


def create_app(settings: Settings) -> Starlette:
    """Opens the state at once, so that a second sandbox on it fails at start; closes it when the server stops."""
    sandbox = Sandbox(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sandbox.start()
        yield
        await sandbox.stop()

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route("/v1/{path:path}", Api(sandbox).__call__, methods=["GET", "POST", "DELETE", "PUT", "PATCH"]),
            Route("/v2/{path:path}", Api(sandbox).__call__, methods=["GET", "POST", "DELETE", "PUT", "PATCH"]),
            Route("/healthz", control.healthz),
            Route("/c/pay/{session}", checkout_page.show),
            Route("/c/pay/{session}", checkout_page.pay, methods=["POST"]),
            Route("/c/pay/{session}/promotion", checkout_page.promotion, methods=["POST"]),
            Route("/authenticate/{challenge}", challenge_page.show),
            Route("/authenticate/{challenge}", challenge_page.answer, methods=["POST"]),
            Route(_PORTAL, portal_page.show),
            Route(f"{_PORTAL}/cancel", portal_page.ask_cancel),
            Route(f"{_PORTAL}/cancel", portal_page.cancel, methods=["POST"]),
            Route(f"{_PORTAL}/resume", portal_page.resume, methods=["POST"]),
            Route(f"{_PORTAL}/change", portal_change_page.choose),
            Route(f"{_PORTAL}/change/confirm", portal_change_page.confirm),
            Route(f"{_PORTAL}/change", portal_change_page.change, methods=["POST"]),
            Route(f"{_PORTAL}/card", portal_page.ask_card),
            Route(f"{_PORTAL}/card", portal_page.save_card, methods=["POST"]),
            Route(_INVOICE, invoice_page.show),
            Route(_INVOICE, invoice_page.pay, methods=["POST"]),
            Route(f"{_INVOICE}/pdf", invoice_page.show_pdf),
            Route("/_sandbox/clock", control.clock),
            Route("/_sandbox/clock/advance", control.advance_clock, methods=["POST"]),
            Route("/_sandbox/deliveries", control.deliveries),
            Route("/_sandbox/deliveries/drain", control.drain, methods=["POST"]),
            Route("/_sandbox/deliveries/replay", control.replay, methods=["POST"]),
            Route("/_sandbox/refunds", dashboard.refund, methods=["POST"]),
            Route("/_sandbox/disputes", dashboard.dispute, methods=["POST"]),
            Route("/_sandbox/disputes/{dispute}/close", dashboard.close_dispute, methods=["POST"]),
            Route("/_sandbox/faults", control.faults),
            Route("/_sandbox/faults", control.set_faults, methods=["PUT"]),
            Route("/_sandbox/settings", control.settings),
            Route("/_sandbox/settings", control.set_settings, methods=["PUT"]),
        ],
    )
    app.state.sandbox = sandbox
    return app
