"""The page of a Checkout session, where a person pays or is declined."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from . import checkout_payment
from .context import Context
from .errors import ApiError
from .money import shown
from .page_kit import blank, card_errors, card_of, date, every, html, message, place, sticky, typed
from .sandbox import Sandbox
from .store import Json


def _closed(sandbox: Sandbox, session: Json | None) -> Response | None:
    if session is None or session["object"] != "checkout.session":
        return message(sandbox, "Page not found", "This link is not valid.", status=404)
    if session["status"] == "complete":
        return message(
            sandbox,
            "You're all done here",
            "This payment has already been made.",
            link=checkout_payment.success_address(session),
        )
    if session["status"] == "expired":
        text = "This checkout has timed out. Start again from the site you came from."
        return message(sandbox, "This link has expired", text, link=session["cancel_url"], status=410)
    return None


def _show(
    sandbox: Sandbox,
    session: Json,
    *,
    values: dict[str, str] | None = None,
    errors: dict[str, str] | None = None,
    problem: str = "",
    status: int = 200,
) -> Response:
    store = sandbox.store
    items = session["line_items"]["data"]
    customer = store.get(session["customer"]) if session["customer"] else None
    recurring = [item for item in items if item["price"]["recurring"]]
    trial_end = session["_data"].get("trial_end")
    currency = session["currency"]
    names = " and ".join(item["description"] for item in items)
    subscribing = session["mode"] == "subscription"
    standing = sum(item["amount_total"] for item in recurring) if trial_end else session["amount_total"]
    lines = [
        {
            "name": item["description"],
            "detail": f"Qty {item['quantity']}" if item["quantity"] > 1 else _about(sandbox, item),
            "amount": shown(item["amount_total"], currency),
            "every": every(item["price"]),
        }
        for item in items
    ]
    terms, trial = "", ""
    if subscribing:
        business = store.setting("business_name", "Sandbox")
        terms = (
            f"By confirming, you allow {business} to charge your card for this and future payments."
            " You can cancel at any time."
        )
    if trial_end:
        trial = f"Free until {date(trial_end)}, then {shown(standing, currency)} {every(recurring[0]['price'])}."
    return html(
        sandbox,
        "checkout.html",
        status,
        session=session,
        headline=f"{'Try' if trial_end else 'Subscribe to'} {names}"
        if subscribing
        else f"Pay {store.setting('business_name', 'Sandbox')}",
        total=shown(standing, currency),
        every=every(recurring[0]["price"]) if recurring else "",
        lines=lines,
        due=shown(session["amount_total"], currency),
        trial=trial,
        known_email=(customer or {}).get("email") or session["customer_email"],
        values=values or blank(),
        errors=errors or blank(),
        problem=problem,
        action=("Start trial" if trial_end else "Subscribe")
        if subscribing
        else f"Pay {shown(session['amount_total'], currency)}",
        terms=terms,
    )


def _about(sandbox: Sandbox, item: Json) -> str:
    product = sandbox.store.get(item["price"]["product"])
    return (product or {}).get("description") or ""


async def show(request: Request) -> Response:
    sandbox: Sandbox = request.app.state.sandbox
    session = sandbox.store.get(request.path_params["session"])
    return _closed(sandbox, session) or _show(sandbox, session or {})


async def pay(request: Request) -> Response:
    sandbox: Sandbox = request.app.state.sandbox
    values = typed(await request.form())
    session = sandbox.store.get(request.path_params["session"])
    closed = _closed(sandbox, session)
    if closed is not None or session is None:
        # A second click on "pay" arrives here after the first went through: it goes where the first went.
        if session is not None and session.get("status") == "complete":
            return RedirectResponse(checkout_payment.success_address(session), 303)
        return closed or Response(status_code=404)
    customer = sandbox.store.get(session["customer"]) if session["customer"] else None
    known = (customer or {}).get("email") or session["customer_email"]
    optional = session["payment_method_collection"] == "if_required" and not session["amount_total"]
    skip_card = optional and not values["cardNumber"]
    errors = blank() if skip_card and known else card_errors(values, needs_email=known is None)
    if skip_card:
        errors |= dict.fromkeys(("cardNumber", "cardExpiry", "cardCvc", "billingName"), "")
    if any(errors.values()):
        return _show(sandbox, session, values=sticky(values), errors=errors, status=422)
    email = known or values["email"]

    def work(ctx: Context) -> Json:
        method = None if skip_card else card_of(ctx, values | {"email": email})
        return checkout_payment.complete(ctx, session, method, email_address=email, name=values["billingName"] or None)

    try:
        done = sandbox.run(sandbox.context(), work)
    except ApiError as error:
        problem = place(error, errors)
        fresh = sandbox.store.get(session["id"]) or session
        return _show(sandbox, fresh, values=sticky(values), errors=errors, problem=problem, status=402)
    return RedirectResponse(checkout_payment.success_address(done), 303)
