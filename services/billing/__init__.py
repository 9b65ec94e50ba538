"""Billing owns Stripe and the tier state.

It owns accounts, users and their memberships, sessions, outside identities, API keys, the audit log; Stripe's customer
and subscription ids (kept for ever), checkout sessions, the webhook log, invoices, signing keys; and per account the
entitlement state with a `version` that only grows; refunds, overrides, and how much of metered use Stripe has heard.
It resolves the catalog; nobody else does. It does not count usage
and sends no mail: it announces what changed.

Words: an *account* is who is billed; a *user* is an email address, a person's once it is verified; a *principal* is who
acts: a key, a session, an outside token, the operator; a *tier* is what the catalog names; the *entitlement state* is
the tier, status and period that follow from Stripe's subscriptions; a *mark* says that an account must be read from
Stripe again.

Invariants (DESIGN §11): 7 each entitlement version has its EntitlementsChanged from the same transaction; 10 after a
sync local state equals a fresh read; 11 replaying the webhook log in any order gives the same state; 12 every
verified event has one row with a final status; 14 no secret in logs, events or errors.

It refuses: unsigned, stale or future-dated webhooks; redirects to origins the catalog does not allow; a second
subscription while one is live; a key that the tier's gate or allowance does not include; to tell another tenant's
account or key from an unknown one; starting without what it needs.
"""
