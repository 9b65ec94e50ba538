"""Every problem that the gateway or a service names: its status, its title, and what to do about it.

The page `/problems` shows this list; the `type` of a problem document points into it.
"""

from __future__ import annotations

from typing import NamedTuple


class ProblemType(NamedTuple):
    status: int
    title: str
    detail: str


KNOWN: dict[str, ProblemType] = {
    # The request itself
    "malformed_http": ProblemType(400, "Malformed HTTP", "This is not an HTTP/1.1 request, or its head is too large."),
    "malformed_json": ProblemType(400, "Malformed JSON", "The body is not one JSON document in UTF-8."),
    "duplicate_key": ProblemType(400, "Duplicate key", "The JSON body names a key twice; say each thing once."),
    "head_timeout": ProblemType(408, "Request too slow", "The head of the request did not arrive in time."),
    "body_timeout": ProblemType(408, "Body too slow", "The body did not arrive in time."),
    "body_too_large": ProblemType(413, "Body too large", "The body is larger than this route takes."),
    "form_malformed": ProblemType(400, "Malformed form", "This is not a form of ours. Reload the page and try again."),
    "form_foreign": ProblemType(
        403, "This page is out of date", "Reload the page and send the form again. If that does not help, sign in anew."
    ),
    "unsupported_media_type": ProblemType(
        415, "Unsupported media type", "Send JSON with Content-Type: application/json."
    ),
    "invalid_argument": ProblemType(422, "Invalid field", "A field has a value that is not accepted; see errors."),
    "validation_failed": ProblemType(
        422, "Validation failed", "The request has another shape than documented; see errors."
    ),
    "idempotency_key_invalid": ProblemType(
        422, "Invalid Idempotency-Key", "Send 1 to 255 printable ASCII characters, once, bare or as a quoted string."
    ),
    "idempotency_key_reused": ProblemType(
        422, "Idempotency-Key reused", "This Idempotency-Key was used with another request. Use a new one."
    ),
    "message_too_large": ProblemType(413, "Message too large", "What was sent is larger than a service takes."),
    "aborted": ProblemType(409, "Request in progress", "The same request is under way. Try again in a moment."),
    "route_not_found": ProblemType(404, "Not found", "There is nothing here. /openapi.json lists every route."),
    "method_not_allowed": ProblemType(
        405, "Method not allowed", "This route takes other methods; the Allow header lists them."
    ),
    "not_found": ProblemType(404, "Not found", "There is no such thing, or it is not yours."),
    # Credentials
    "unauthenticated": ProblemType(401, "Not authenticated", "Send your API key: Authorization: Bearer sk_live_…"),
    "authorization_malformed": ProblemType(
        401, "Malformed Authorization", "Send one header of the form: Authorization: Bearer <key or token>"
    ),
    "api_key_required": ProblemType(401, "API key required", "This route takes an API key, not an access token."),
    "api_key_malformed": ProblemType(
        401, "Malformed API key", "This is not an API key: check that it was copied whole."
    ),
    "api_key_unknown": ProblemType(401, "Unknown API key", "No account has this API key."),
    "api_key_revoked": ProblemType(401, "Revoked API key", "This API key was revoked. Use a newer one."),
    "token_invalid": ProblemType(
        401, "Invalid access token", "The token was not issued here, or was altered. Get one from /v1/auth/token."
    ),
    "token_expired": ProblemType(401, "Expired access token", "The token has expired. Get one from /v1/auth/token."),
    "token_required": ProblemType(401, "Token required", "This route takes a token of your identity provider."),
    "session_invalid": ProblemType(401, "Not signed in", "The session has ended. Sign in again."),
    "session_required": ProblemType(
        403, "Session required", "This takes a person who has signed in; an API key is not enough."
    ),
    "insufficient_role": ProblemType(403, "Insufficient role", "This takes another role in the account; see role."),
    "permission_denied": ProblemType(403, "Not allowed", "These credentials may not do this."),
    "insufficient_scope": ProblemType(
        403, "Insufficient scope", "These credentials lack a scope; the member scope names it."
    ),
    "operator_token_invalid": ProblemType(401, "Invalid operator token", "This is not the operator's token."),
    "operator_disabled": ProblemType(
        403, "No operator", "This installation has no operator token, so nobody may do this."
    ),
    # Accounts and billing
    "account_not_found": ProblemType(404, "Account not found", "There is no such account."),
    "user_not_found": ProblemType(404, "User not found", "Nobody has this address."),
    "key_not_found": ProblemType(404, "Key not found", "There is no such key."),
    "key_ended": ProblemType(409, "Key ended", "This key was revoked or rotated already. Issue a new one."),
    "unknown_key_kind": ProblemType(422, "Unknown kind of key", "The catalog has no such kind of key."),
    "plan_refused": ProblemType(
        402, "Not in your plan", "The plan does not include this; code and reason are the catalog's word for why."
    ),
    "sign_in_link_invalid": ProblemType(
        401, "Link is over", "This link has been used, or its time is over. Ask for a new one."
    ),
    "sign_in_link_other_browser": ProblemType(
        401, "Another browser", "This link was asked for in another browser. Open it there, or ask for a new one."
    ),
    "sign_in_rate_limited": ProblemType(
        429, "Too many tries", "Too many tries to sign in from this address or for this email. Try again later."
    ),
    "mail_not_accepted": ProblemType(503, "Mail not taken", "The mail server did not take the mail. Try again later."),
    "mail_refused": ProblemType(409, "Mail refused", "The mail server refuses to deliver to this address."),
    "device_login_rate_limited": ProblemType(
        429, "Too many logins", "Too many logins were begun from this address. Try again later."
    ),
    "device_code_rate_limited": ProblemType(429, "Too many wrong codes", "Too many wrong codes. Try again later."),
    "device_login_not_found": ProblemType(404, "Code not found", "This code is not known, or has expired."),
    "device_login_decided": ProblemType(409, "Decided already", "This login was approved or refused already."),
    "authorization_pending": ProblemType(400, "Not approved yet", "Nobody has approved the code yet. Poll again."),
    "slow_down": ProblemType(400, "Polled too often", "Wait five seconds longer between polls from now on."),
    "access_denied": ProblemType(400, "Login refused", "The person refused the login."),
    "expired_token": ProblemType(400, "Code expired", "The code has expired. Ask for a new one."),
    "invalid_grant": ProblemType(400, "Unknown device code", "The device code is unknown, or was used already."),
    "sign_up_rate_limited": ProblemType(
        429, "Too many sign-ups", "Too many sign-ups from this address or for this email. Try again later."
    ),
    "unknown_tier": ProblemType(422, "Unknown tier", "The catalog has no such tier; /v1/plans lists them."),
    "unknown_price": ProblemType(
        422, "Unknown price", "The catalog sells nothing at this price; /v1/plans lists the ids."
    ),
    "contact_sales": ProblemType(
        422, "Sold by contract", "This tier is sold by contract; the member contact says whom to write to."
    ),
    "redirect_not_allowed": ProblemType(
        422, "Redirect not allowed", "The address is not absolute, or its origin is not on the catalog's list."
    ),
    "already_subscribed": ProblemType(
        409, "Already subscribed", "The account has a live subscription. Change it in the portal."
    ),
    "no_customer": ProblemType(409, "No customer yet", "The account has not bought anything yet, so it has no portal."),
    "catalog_not_pushed": ProblemType(
        409, "Not on sale yet", "The operator has not put the catalog's prices on sale at Stripe."
    ),
    "account_erased": ProblemType(409, "Account erased", "The account's personal data was erased; nothing is changed."),
    "subscription_running": ProblemType(
        409, "Subscription running", "A subscription still runs: end it first, at once or with its period."
    ),
    "refund_under_way": ProblemType(409, "Refund under way", "A refund is under way. Try again when it is done."),
    "event_not_found": ProblemType(404, "Event not found", "There is no such event."),
    "no_subscription": ProblemType(409, "No subscription", "There is no live subscription to change."),
    "plan_unchanged": ProblemType(409, "Same plan", "The account is on this plan already."),
    "payment_declined": ProblemType(402, "Payment declined", "The card was declined; the plan stays as it was."),
    "refund_not_offered": ProblemType(409, "No refund policy", "This product gives no refunds by policy."),
    "nothing_to_refund": ProblemType(409, "Nothing to refund", "There is no paid subscription to refund."),
    "refund_window_over": ProblemType(409, "Too late for a refund", "The time in which a refund is given is over."),
    "refund_usage_exceeded": ProblemType(409, "Too much was used", "More was used than a refund allows for."),
    "failed_precondition": ProblemType(409, "Not possible now", "The account's present state does not allow this."),
    "already_exists": ProblemType(409, "Already exists", "This exists already."),
    # Mails
    "bad_page_token": ProblemType(422, "Unknown page token", "Send the next_page_token of the page before, or none."),
    "message_not_found": ProblemType(404, "Message not found", "There is no such message."),
    "message_already_sent": ProblemType(
        409, "Already sent", "The mail server has accepted it; `again: true` sends it once more."
    ),
    "message_erased": ProblemType(409, "Erased", "The message's account was erased: nothing of it is kept."),
    "nothing_to_send": ProblemType(409, "Nothing to send", "What the message would say is nothing, or no longer so."),
    "no_recipient": ProblemType(409, "Nobody to send to", "The account has no usable mail address."),
    # Webhooks
    "signature_invalid": ProblemType(
        400, "Invalid signature", "The Stripe-Signature does not match the body, or is not of the last 300 seconds."
    ),
    "livemode_mismatch": ProblemType(
        400, "Wrong mode", "A live event reached a test installation, or the other way round."
    ),
    "event_malformed": ProblemType(400, "Malformed event", "The body is not a Stripe event."),
    # Usage
    "unknown_meter": ProblemType(422, "Unknown meter", "The plan has no such meter; GET /v1/usage lists them."),
    "payment_required": ProblemType(402, "Payment required", "The plan does not allow this now; see reason."),
    "cap_not_offered": ProblemType(422, "No cap here", "The plan has no cap on this meter."),
    "not_sold_by_unit": ProblemType(422, "Not sold by the unit", "The plan has no price for units of this meter."),
    "counter_full": ProblemType(
        409, "Counter full", "The counter ends at 2^63 - 1 and cannot take so many units more. Nothing was counted."
    ),
    "lease_not_found": ProblemType(404, "Lease not found", "There is no such live lease."),
    "grant_not_found": ProblemType(404, "Grant not found", "Nothing was granted under this id."),
    "reversed": ProblemType(409, "Taken back", "What was granted under this id was taken back. Use a new one."),
    "no_download_meter": ProblemType(403, "No downloads", "Keys of this kind drive no meter."),
    "download_url_invalid": ProblemType(
        403, "Invalid download URL", "The address was not signed here, or was altered."
    ),
    "download_url_expired": ProblemType(
        410, "Expired download URL", "The download's lease has ended. Ask for the download again."
    ),
    "resource_exhausted": ProblemType(429, "Too many requests", "Slow down, and try again in a moment."),
    # Our side
    "route_misconfigured": ProblemType(
        500, "Misconfigured route", "The proxy's route names no meter that the plan knows; the operator has to mend it."
    ),
    "internal": ProblemType(500, "Internal error", "Something went wrong on our side; it is in the log."),
    "jwks_unavailable": ProblemType(
        503, "Identity provider unavailable", "The identity provider's keys cannot be read. Try again in a moment."
    ),
    "jwks_unreadable": ProblemType(
        503, "Identity provider unavailable", "The identity provider's keys cannot be read. Try again in a moment."
    ),
    "unavailable": ProblemType(503, "Unavailable", "A service that this needs does not answer. Try again in a moment."),
    "store_unavailable": ProblemType(503, "Unavailable", "The database cannot be reached. Try again in a moment."),
    "billing_unavailable": ProblemType(
        503, "Unavailable", "What the account may use is not known yet. Nothing was counted; try again in a moment."
    ),
    "queue_full": ProblemType(
        503, "Too busy", "Too many decisions are waiting. Nothing was counted; try again in a moment."
    ),
    "stripe_unavailable": ProblemType(503, "Stripe unavailable", "Stripe did not answer; nothing was sold. Try again."),
    "not_ready": ProblemType(503, "Not ready", "A service is not ready; the member services says which."),
    "expired_in_queue": ProblemType(
        504, "No answer in time", "Time was over before it was this request's turn. Nothing was counted; try again."
    ),
    "deadline_exceeded": ProblemType(
        504,
        "No answer in time",
        "There was no answer in time, and it is not known whether it happened. Repeat it with its Idempotency-Key.",
    ),
}
