"""The customer portal's page: plan, card, invoices, cancel and resume. Every step is a plain form."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from . import challenges, customers, lifecycle, payment_methods
from .context import Context
from .errors import ApiError
from .money import shown
from .page_kit import blank, card_errors, card_of, date, html, message, place, price_words, sticky, typed
from .sandbox import Sandbox
from .store import Json

_OPEN_SECONDS = 24 * 3600
_STATES = {
    "active": ("Active", "good"),
    "trialing": ("Trial", "good"),
    "past_due": ("Past due", "bad"),
    "unpaid": ("Unpaid", "bad"),
    "paused": ("Paused", "plain"),
    "incomplete": ("Incomplete", "bad"),
}
NOTICES = {
    "canceled": "Your plan has been cancelled. It stays active until the end of the period.",
    "ended": "Your plan has been cancelled.",
    "resumed": "Your plan will renew as before.",
    "card": "Your card has been updated.",
    "card_failed": "Your bank did not confirm the card, so it was not saved.",
}


class _Visit:
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


def _ending(subscription: Json) -> bool:
    return subscription["cancel_at"] is not None


def _plan(sandbox: Sandbox, subscription: Json, features: Json) -> Json:
    items = subscription["items"]["data"]
    names = [(sandbox.store.get(item["price"]["product"]) or {}).get("name", "") for item in items]
    state, tone = _STATES[subscription["status"]]
    until = min(item["current_period_end"] for item in items)
    if _ending(subscription):
        state, tone, when = "Cancels soon", "plain", f"Cancels on {date(subscription['cancel_at'])}."
    elif subscription["status"] == "trialing":
        when = f"Free until {date(subscription['trial_end'])}."
    elif subscription["status"] in ("active", "past_due"):
        when = f"Renews on {date(until)}."
    else:
        when = ""
    return {
        "id": subscription["id"],
        "name": " + ".join(names),
        "price": " + ".join(price_words(item["price"], item["quantity"]) for item in items),
        "state": state,
        "tone": tone,
        "when": when,
        "can_resume": _ending(subscription),
        "can_cancel": features["subscription_cancel"]["enabled"],
    }


async def show(request: Request) -> Response:
    visit = _Visit(request)
    if visit.refused is not None:
        return visit.refused
    flow = visit.session["flow"]
    if flow is not None and "at" not in request.query_params and "done" not in request.query_params:
        if flow["type"] == "payment_method_update":
            return RedirectResponse(f"{visit.base}/card", 303)
        wanted = flow["subscription_cancel"]["subscription"]
        if visit.subscription(wanted) is not None:
            return RedirectResponse(f"{visit.base}/cancel?subscription={wanted}", 303)
    store = visit.sandbox.store
    method_id = visit.customer["invoice_settings"]["default_payment_method"]
    for subscription in visit.live():
        method_id = subscription["default_payment_method"] or method_id
    method = store.get(method_id, "payment_method") if method_id else None
    invoices = [
        {
            "date": date(invoice["created"]),
            "number": invoice["number"],
            "status": invoice["status"].capitalize(),
            "tone": {"paid": "good", "open": "bad"}.get(invoice["status"], "plain"),
            "amount": shown(invoice["total"], invoice["currency"]),
            "link": invoice["hosted_invoice_url"],
        }
        for invoice in reversed(store.all("invoice", customer=visit.customer["id"]))
        if invoice["hosted_invoice_url"]
    ]
    card = None
    if method is not None:
        shown_card = method["card"]
        expires = f"{shown_card['exp_month']:02d}/{shown_card['exp_year'] % 100:02d}"
        card = {"brand": shown_card["brand"].capitalize(), "last4": shown_card["last4"], "expires": expires}
    return html(
        visit.sandbox,
        "portal.html",
        **visit.common(),
        notice=NOTICES.get(request.query_params.get("done", ""), ""),
        subscriptions=[_plan(visit.sandbox, subscription, visit.features) for subscription in visit.live()],
        card=card,
        invoices=invoices,
    )


def _at_period_end(visit: _Visit, subscription: Json) -> bool:
    return visit.features["subscription_cancel"]["mode"] == "at_period_end" and subscription["status"] in (
        "active",
        "trialing",
        "past_due",
    )


async def ask_cancel(request: Request) -> Response:
    visit = _Visit(request)
    if visit.refused is not None:
        return visit.refused
    subscription = visit.subscription(request.query_params.get("subscription"))
    if subscription is None or not visit.features["subscription_cancel"]["enabled"]:
        return RedirectResponse(visit.base, 303)
    if _at_period_end(visit, subscription):
        until = max(item["current_period_end"] for item in subscription["items"]["data"])
        consequence = f"Your plan stays available until {date(until)} and is not renewed after that."
    else:
        consequence = "Your plan ends at once."
    plan = _plan(visit.sandbox, subscription, visit.features)
    return html(visit.sandbox, "portal_cancel.html", **visit.common(), sub=plan, consequence=consequence)


def _done(visit: _Visit, what: str) -> Response:
    flow = visit.session["flow"]
    if flow is not None and flow["after_completion"]["type"] == "redirect":
        return RedirectResponse(flow["after_completion"]["redirect"]["return_url"], 303)
    return RedirectResponse(f"{visit.base}?done={what}", 303)


async def cancel(request: Request) -> Response:
    """Flexible billing sets `cancel_at` alone; classic sets the flag beside it, as Stripe's portal does."""
    visit = _Visit(request)
    if visit.refused is not None:
        return visit.refused
    subscription = visit.subscription(str((await request.form()).get("subscription")))
    if subscription is None or not visit.features["subscription_cancel"]["enabled"]:
        return RedirectResponse(visit.base, 303)
    if not _at_period_end(visit, subscription):
        prorate = visit.features["subscription_cancel"]["proration_behavior"] != "none"
        visit.sandbox.run(
            visit.sandbox.context(), lambda ctx: lifecycle.close(ctx, subscription, prorate=prorate, bill=False)
        )
        return _done(visit, "ended")
    if _ending(subscription):
        return _done(visit, "canceled")

    def work(ctx: Context) -> None:
        after = subscription | {
            "cancel_at": max(item["current_period_end"] for item in subscription["items"]["data"]),
            "cancel_at_period_end": subscription["billing_mode"]["type"] == "classic",
            "canceled_at": ctx.now_of(visit.customer),
            "cancellation_details": subscription["cancellation_details"] | {"reason": "cancellation_requested"},
        }
        ctx.save(after, "customer.subscription.updated", subscription)
        lifecycle.schedule(ctx, after)

    visit.sandbox.run(visit.sandbox.context(), work)
    return _done(visit, "canceled")


async def resume(request: Request) -> Response:
    visit = _Visit(request)
    if visit.refused is not None:
        return visit.refused
    subscription = visit.subscription(str((await request.form()).get("subscription")))
    if subscription is None or not _ending(subscription):
        return RedirectResponse(visit.base, 303)

    def work(ctx: Context) -> None:
        after = subscription | {
            "cancel_at": None,
            "cancel_at_period_end": False,
            "canceled_at": None,
            "cancellation_details": subscription["cancellation_details"] | {"reason": None},
        }
        ctx.save(after, "customer.subscription.updated", subscription)
        lifecycle.schedule(ctx, after)

    visit.sandbox.run(visit.sandbox.context(), work)
    return _done(visit, "resumed")


async def ask_card(request: Request) -> Response:
    visit = _Visit(request)
    if visit.refused is not None:
        return visit.refused
    return html(visit.sandbox, "portal_card.html", **visit.common(), values=blank(), errors=blank(), problem="")


async def save_card(request: Request) -> Response:
    """A new default card; what is owed is tried with it at once."""
    visit = _Visit(request)
    if visit.refused is not None:
        return visit.refused
    values = typed(await request.form())
    errors = card_errors(values, needs_email=False)
    problem = ""

    def work(ctx: Context) -> str | None:
        method = card_of(ctx, values)
        if payment_methods.card_of(method).authenticates:
            return challenges.ask(ctx, "portal_card", visit.customer["id"], method, back=visit.base)
        customers.use_card(ctx, visit.customer, method)
        return None

    if not any(errors.values()):
        try:
            challenge = visit.sandbox.run(visit.sandbox.context(), work)
            return _done(visit, "card") if challenge is None else RedirectResponse(challenge, 303)
        except ApiError as error:
            problem = place(error, errors)
    shown_again = sticky(values)
    return html(
        visit.sandbox, "portal_card.html", 422, **visit.common(), values=shown_again, errors=errors, problem=problem
    )
