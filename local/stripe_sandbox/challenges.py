"""Challenges: the confirmation that a card's bank asks of the person (3D Secure), on a page of its own."""

from __future__ import annotations

from . import ids
from .context import Context
from .store import Json

FAILED = "We are unable to authenticate your payment method. Please choose a different payment method and try again."


def ask(ctx: Context, what: str, target: str, method: Json, **more: str | None) -> str:
    """The address where the person confirms `method` for the target, an object of the kind `what`."""
    challenge: Json = {
        "id": ids.new("3ds"),
        "object": "challenge",
        "what": what,
        "target": target,
        "method": method["id"],
        "status": "pending",
        **more,
    }
    ctx.create(challenge)
    return f"{ctx.base_url}/authenticate/{challenge['id']}"


def next_action(ctx: Context, what: str, intent: Json, method: Json) -> Json:
    """What an intent says is to be done: go to the challenge's address, by oneself or through Stripe's script."""
    back = intent.get("_return_url")
    address = ask(ctx, what, intent["id"], method, back=back)
    if back is not None:
        return {"type": "redirect_to_url", "redirect_to_url": {"return_url": back, "url": address}}
    return {
        "type": "use_stripe_sdk",
        "use_stripe_sdk": {"type": "three_d_secure_redirect", "stripe_js": address},
    }


def address_of(intent: Json) -> str | None:
    """Where the person can confirm an intent that waits for it."""
    action = intent["next_action"] or {}
    if "redirect_to_url" in action:
        return str(action["redirect_to_url"]["url"])
    script = (action.get("use_stripe_sdk") or {}).get("stripe_js")
    return str(script) if script else None
