"""A visit to the customer portal: its session, customer and configuration, or the page that says why there is none."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from .page_kit import message
from .sandbox import Sandbox
from .store import Json

_OPEN_SECONDS = 24 * 3600


class Visit:
    """An open portal session, or the page that says why there is none."""

    def __init__(self, request: Request) -> None:
        self.sandbox: Sandbox = request.app.state.sandbox
        store = self.sandbox.store
        session = store.get(request.path_params["session"], "billing_portal.session")
        self.refused: Response | None = None
        if session is None or session["_token"] != request.path_params["token"]:
            self.refused = message(self.sandbox, "Page not found", "This link is not valid.", status=404)
            return
        self.session: Json = session
        self.base = f"/p/session/{session['id']}/{session['_token']}"
        customer = store.get(session["customer"], "customer")
        if customer is None or self._now(customer) > session["created"] + _OPEN_SECONDS:
            text = "Open billing again from the site you came from."
            self.refused = message(self.sandbox, "This link has expired", text, link=session["return_url"], status=410)
            return
        self.customer: Json = customer
        configuration = store.get(session["configuration"])
        self.features: Json = (configuration or {})["features"]

    def _now(self, customer: Json) -> int:
        return self.sandbox.context().now_of(customer)

    def subscription(self, wanted: str | None) -> Json | None:
        for subscription in self.live():
            if subscription["id"] == wanted:
                return subscription
        return None

    def live(self) -> list[Json]:
        every = self.sandbox.store.all("subscription", customer=self.customer["id"])
        return [subscription for subscription in reversed(every) if subscription["ended_at"] is None]

    def common(self) -> Json:
        return {"session": self.session, "base": self.base, "customer": self.customer, "features": self.features}


def ending(subscription: Json) -> bool:
    return subscription["cancel_at"] is not None


def done(visit: Visit, what: str) -> Response:
    flow = visit.session["flow"]
    if flow is not None and flow["after_completion"]["type"] == "redirect":
        return RedirectResponse(flow["after_completion"]["redirect"]["return_url"], 303)
    return RedirectResponse(f"{visit.base}?done={what}", 303)
