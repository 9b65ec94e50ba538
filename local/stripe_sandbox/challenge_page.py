"""The page on which a person passes their bank's challenge, or fails it, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from . import challenges, charging, checkout_payment, collection, customers, payment_methods, setup_intents
from .context import Context
from .errors import ApiError
from .page_kit import html, message
from .sandbox import Sandbox
from .store import Json


def _found(request: Request) -> tuple[Sandbox, Json | None]:
    sandbox: Sandbox = request.app.state.sandbox
    return sandbox, sandbox.store.get(request.path_params["challenge"], "challenge")


def _over(sandbox: Sandbox) -> Response:
    return message(sandbox, "This link has expired", "Nothing waits for your confirmation here.", status=410)


async def show(request: Request) -> Response:
    sandbox, challenge = _found(request)
    if challenge is None or challenge["status"] != "pending":
        return _over(sandbox)
    method = sandbox.store.get(challenge["method"], "payment_method") or {}
    return html(sandbox, "challenge.html", last4=method["card"]["last4"])


async def answer(request: Request) -> Response:
    sandbox, challenge = _found(request)
    passed = (await request.form()).get("result") == "complete"
    if challenge is None or challenge["status"] != "pending":
        return _over(sandbox)

    def work(ctx: Context) -> str | None:
        ctx.save(challenge | {"status": "passed" if passed else "failed"})
        method = ctx.need(challenge["method"], "payment_method")
        if passed:
            method = payment_methods.set_up(ctx, method)
        return _FOLLOWS[challenge["what"]](ctx, challenge, method, passed)

    try:
        address = sandbox.run(sandbox.context(), work)
    except ApiError as error:
        return message(sandbox, "Something went wrong", error.message, status=error.status)
    if address is None:
        told = "Your bank has confirmed the card." if passed else challenges.FAILED
        return message(sandbox, "Confirmed" if passed else "Not confirmed", told)
    return RedirectResponse(address, 303)


def _checkout(ctx: Context, challenge: Json, method: Json, passed: bool) -> str:
    session = ctx.need(challenge["target"], "checkout.session")
    if not passed and session["status"] == "open":
        return f"/c/pay/{session['id']}?failed=authentication"
    if session["status"] != "open":
        return checkout_payment.success_address(session)
    done = checkout_payment.complete(ctx, session, method, email_address=challenge["email"], name=challenge["name"])
    return checkout_payment.success_address(done)


def _payment_intent(ctx: Context, challenge: Json, method: Json, passed: bool) -> str | None:
    intent = ctx.need(challenge["target"], "payment_intent")
    invoice = ctx.store.get(intent["_invoice"], "invoice") if intent.get("_invoice") else None
    waiting = intent["status"] in ("requires_action", "requires_payment_method", "requires_confirmation")
    if waiting and invoice is not None and invoice["status"] != "open":
        waiting = False
    if waiting and not passed:
        intent["payment_method"] = method["id"]
        charging.fail_authentication(ctx, intent)
    elif waiting and invoice is not None:
        collection.attempt(ctx, invoice, method, on_session=True)
    elif waiting:
        charging.confirm(ctx, intent, method, on_session=True)
    if challenge.get("back"):
        status = ctx.need(intent["id"], "payment_intent")["status"]
        return with_query(
            challenge["back"],
            payment_intent=intent["id"],
            redirect_status="succeeded" if status == "succeeded" else "failed",
        )
    return invoice["hosted_invoice_url"] if invoice is not None else None


def _setup_intent(ctx: Context, challenge: Json, method: Json, passed: bool) -> str | None:
    intent = setup_intents.finish(ctx, ctx.need(challenge["target"], "setup_intent"), method, passed=passed)
    if not challenge.get("back"):
        return None
    status = "succeeded" if intent["status"] == "succeeded" else "failed"
    return with_query(challenge["back"], setup_intent=intent["id"], redirect_status=status)


def _portal_card(ctx: Context, challenge: Json, method: Json, passed: bool) -> str:
    if passed:
        customers.use_card(ctx, ctx.need(challenge["target"], "customer"), method)
    return f"{challenge['back']}?done={'card' if passed else 'card_failed'}"


def with_query(address: str, **more: str) -> str:
    return f"{address}{'&' if '?' in address else '?'}{urlencode(more)}"


_FOLLOWS: dict[str, Callable[[Context, Json, Json, bool], str | None]] = {
    "checkout": _checkout,
    "payment_intent": _payment_intent,
    "portal_card": _portal_card,
    "setup_intent": _setup_intent,
}
