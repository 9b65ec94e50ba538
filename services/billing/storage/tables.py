"""Billing's tables. The migrations create them; a test proves that the two agree."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Interval,
    LargeBinary,
    Table,
    Text,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.kit.database import new_metadata
from services.kit.inbox import inbox_table
from services.kit.outbox import outbox_table

metadata = new_metadata()
_INSTANT = DateTime(timezone=True)

outbox = outbox_table(metadata)
inbox = inbox_table(metadata)

account = Table(
    "account",
    metadata,
    Column("id", Text, primary_key=True),
    Column("slug", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("stripe_customer_id", Text, unique=True),
    Column("create_time", _INSTANT, nullable=False),
    Column("import_time", _INSTANT),
    Column("contact_verify_time", _INSTANT),
    Column("erase_time", _INSTANT),
    Index("ix_account_email", literal_column("lower(email)")),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("shown", Text, nullable=False),
    Column("create_time", _INSTANT, nullable=False),
    Column("revoke_time", _INSTANT),  # from then on it is refused; after a rotation this lies ahead
    Column("successor_id", ForeignKey("api_key.id"), unique=True),
    Column("user_id", ForeignKey("app_user.id")),  # for whom it was issued, when that was a user
)

# An email address; a person's once `verify_time` says that it reached them.
app_user = Table(
    "app_user",
    metadata,
    Column("id", Text, primary_key=True),
    Column("email", Text, nullable=False, unique=True),  # lower case
    Column("verify_time", _INSTANT),
    Column("create_time", _INSTANT, nullable=False),
)

membership = Table(
    "membership",
    metadata,
    Column("account_id", ForeignKey("account.id"), primary_key=True),
    Column("user_id", ForeignKey("app_user.id"), primary_key=True, index=True),
    Column("role", Text, nullable=False),  # owner, admin, member
    Column("create_time", _INSTANT, nullable=False),
)

login_session = Table(
    "login_session",
    metadata,
    Column("id", Text, primary_key=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("user_id", ForeignKey("app_user.id"), nullable=False, index=True),
    Column("create_time", _INSTANT, nullable=False),
    Column("expire_time", _INSTANT, nullable=False, index=True),
    Column("end_time", _INSTANT),
)

# A program that asks to be signed in. Codes by their hashes; see storage.device_logins.
device_login = Table(
    "device_login",
    metadata,
    Column("id", Text, primary_key=True),
    Column("device_hash", LargeBinary, nullable=False, unique=True),
    Column("user_hash", LargeBinary, nullable=False, unique=True),
    Column("client_name", Text, nullable=False),
    Column("remote_address", Text, nullable=False),
    Column("create_time", _INSTANT, nullable=False),
    Column("expire_time", _INSTANT, nullable=False, index=True),
    Column("interval", Interval, nullable=False),
    Column("poll_time", _INSTANT),
    Column("user_id", ForeignKey("app_user.id")),
    Column("account_id", ForeignKey("account.id")),
    Column("approve_time", _INSTANT),
    Column("deny_time", _INSTANT),
    Column("use_time", _INSTANT),
    Index("ix_device_login_remote_address", "remote_address", "create_time"),
)

device_code_miss = Table(
    "device_code_miss",
    metadata,
    Column("user_id", ForeignKey("app_user.id"), nullable=False),
    Column("create_time", _INSTANT, nullable=False, index=True),
    Index("ix_device_code_miss_user", "user_id", "create_time"),
)

# A mailed link that lets one browser in, once.
sign_in_link = Table(
    "sign_in_link",
    metadata,
    Column("id", Text, primary_key=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("user_id", ForeignKey("app_user.id"), nullable=False, index=True),
    Column("browser_hash", LargeBinary, nullable=False),
    Column("create_time", _INSTANT, nullable=False),
    Column("expire_time", _INSTANT, nullable=False, index=True),
    Column("use_time", _INSTANT),
)

# For the rate limits; `email` is empty for tries with a key.
sign_in_attempt = Table(
    "sign_in_attempt",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("email", Text, nullable=False),
    Column("remote_address", Text, nullable=False),
    Column("create_time", _INSTANT, nullable=False),
    Index("ix_sign_in_attempt_email", "email", "create_time"),
    Index("ix_sign_in_attempt_remote_address", "remote_address", "create_time"),
)

# A browser that came in with an API key.
key_session = Table(
    "key_session",
    metadata,
    Column("id", Text, primary_key=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("key_id", ForeignKey("api_key.id"), nullable=False, index=True),
    Column("create_time", _INSTANT, nullable=False),
    Column("expire_time", _INSTANT, nullable=False, index=True),
    Column("end_time", _INSTANT),
)

outside_identity = Table(
    "outside_identity",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("external_id", Text, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("create_time", _INSTANT, nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Text, primary_key=True),  # in the order of time
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("actor_kind", Text, nullable=False),  # key, session, outside, operator, system
    Column("actor_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", JSONB, nullable=False),
    Column("create_time", _INSTANT, nullable=False),
    Column("delete_time", _INSTANT, nullable=False, index=True),  # fixed by the tier of then
    Index("ix_audit_log_account", "account_id", "id"),
)

# Change by change, so that who follows can ask for what changed since. See storage.entitlements.
entitlement = Table(
    "entitlement",
    metadata,
    Column("account_id", ForeignKey("account.id"), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("tier", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("subscription_id", Text, nullable=False),
    Column("price_id", Text, nullable=False),
    Column("granted_price_id", Text, nullable=False),
    Column("period_anchor", _INSTANT),
    Column("period_interval", Text, nullable=False),
    Column("period_start", _INSTANT),
    Column("period_end", _INSTANT),
    Column("cancel_at_period_end", Boolean, nullable=False),
    Column("catalog_hash", Text, nullable=False),
    Column("change_time", _INSTANT, nullable=False),
    Index("ix_entitlement_change", "change_time", "account_id"),
    Index("ix_entitlement_catalog_hash", "catalog_hash"),
)

# As last read from Stripe, whole: what `current` and reconciliation look at.
subscription = Table(
    "subscription",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("customer_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("price_id", Text, nullable=False),
    Column("lookup_key", Text, nullable=False),
    Column("interval", Text, nullable=False),
    Column("create_time", _INSTANT, nullable=False),
    Column("anchor", _INSTANT, nullable=False),
    Column("period_start", _INSTANT, nullable=False),
    Column("period_end", _INSTANT, nullable=False),
    Column("cancel_at_period_end", Boolean, nullable=False),
    Column("cancel_at", _INSTANT),
    Column("canceled_at", _INSTANT),
    Column("ended_at", _INSTANT),
    Column("trial_end", _INSTANT),
    Column("cancel_reason", Text, nullable=False, server_default=""),
    # Ours: what was announced. See domain.notices.
    Column("trial_end_told", _INSTANT),
    Column("cancel_time_told", _INSTANT),
    Column("ended_told", Boolean, nullable=False, server_default=text("false")),
)

invoice = Table(
    "invoice",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("customer_id", Text, nullable=False),
    Column("subscription_id", Text, nullable=False),
    Column("number", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount_due", BigInteger, nullable=False),
    Column("amount_paid", BigInteger, nullable=False),
    Column("attempt_count", Integer, nullable=False),
    Column("next_attempt_time", _INSTANT),
    Column("hosted_url", Text, nullable=False),
    Column("pdf_url", Text, nullable=False),
    Column("customer_email", Text, nullable=False),
    Column("billing_reason", Text, nullable=False),
    Column("price_id", Text, nullable=False),
    Column("create_time", _INSTANT, nullable=False),
    Column("paid_time", _INSTANT),
    # Ours: what was announced, so that each fact is announced once whatever is heard again.
    Column("paid_announced", Boolean, nullable=False),
    Column("attempts_announced", Integer, nullable=False),
    Column("first_failure_time", _INSTANT),
)

# A refund by policy: one per account, in the states of domain.refund.
refund = Table(
    "refund",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False, unique=True),
    Column("customer_id", Text, nullable=False),
    Column("subscription_id", Text, nullable=False),
    Column("invoice_id", Text, nullable=False),
    Column("payment_intent", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("used", BigInteger),
    Column("attempt", Integer, nullable=False),
    Column("stripe_refund_id", Text, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("create_time", _INSTANT, nullable=False),
    Column("finish_time", _INSTANT),
    Column("hold_until", _INSTANT, nullable=False),  # until then whoever works on it has it to itself
    Index("ix_refund_open", "hold_until", postgresql_where=literal_column("finish_time IS NULL")),
)

# Refunds and disputes as last read from Stripe, whoever made them.
charge_reversal = Table(
    "charge_reversal",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("kind", Text, nullable=False),  # refund, dispute
    Column("charge_id", Text, nullable=False),
    Column("invoice_id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("policy_refund_id", Text, nullable=False),
    Column("create_time", _INSTANT, nullable=False),
    Column("announced_status", Text, nullable=False),  # ours: what others have heard of it; empty: nothing
)

# Tiers by agreement, whatever the subscription says. The audit log keeps those that have ended.
override = Table(
    "override",
    metadata,
    Column("account_id", ForeignKey("account.id"), primary_key=True),
    Column("tier", Text, nullable=False),
    Column("terms", Text, nullable=False),
    Column("end_time", _INSTANT, index=True),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("create_time", _INSTANT, nullable=False),
)

# Use that is sold by the unit: quota's totals, and how much of them Stripe's meter has taken. See domain.metering.
usage_total = Table(
    "usage_total",
    metadata,
    Column("account_id", ForeignKey("account.id"), primary_key=True),
    Column("meter", Text, primary_key=True),
    Column("period_start", _INSTANT, primary_key=True),
    Column("period_end", _INSTANT, nullable=False),
    Column("used", BigInteger, nullable=False),
    Column("record_time", _INSTANT, nullable=False),
    Column("final", Boolean, nullable=False),
    Column("sent", BigInteger, nullable=False),
    Column("sending", BigInteger),
    Column("sending_stamp", _INSTANT),
    Column("reports", BigInteger, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("hold_until", _INSTANT, nullable=False),
    Index(
        "ix_usage_total_open",
        "account_id",
        "meter",
        postgresql_where=literal_column("used <> sent OR sending IS NOT NULL"),
    ),
)

checkout = Table(
    "checkout",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("tier", Text, nullable=False),
    Column("price_id", Text, nullable=False),
    Column("success_url", Text, nullable=False),
    Column("cancel_url", Text, nullable=False),
    Column("state", Text, nullable=False),  # creating, open, closed
    Column("attempt", Integer, nullable=False),  # part of Stripe's idempotency key; grows after a stored 5xx
    Column("session_id", Text, unique=True),
    Column("url", Text),
    Column("expire_time", _INSTANT),
    Column("create_time", _INSTANT, nullable=False),
    Column("metered_price_ids", Text, nullable=False, server_default=""),  # with commas between; of units sold
    # DESIGN §4: one session per account is open at a time.
    Index("uq_checkout_open", "account_id", unique=True, postgresql_where=literal_column("state <> 'closed'")),
)

webhook_event = Table(
    "webhook_event",
    metadata,
    Column("id", Text, primary_key=True),  # Stripe's evt_…
    Column("type", Text, nullable=False),
    Column("account_id", ForeignKey("account.id")),
    Column("customer_id", Text, nullable=False),
    Column("invoice_id", Text, nullable=False),
    Column("charge_id", Text, nullable=False, server_default=""),
    Column("payload", LargeBinary, nullable=False),
    Column("create_time", _INSTANT, nullable=False),  # Stripe's; never an order
    Column("receive_time", _INSTANT, nullable=False),
    Column("mark", BigInteger),  # the account's `wanted` that this event raised
    # pending until applied; applied, ignored, ignored_foreign and dead are final.
    Column("status", Text, nullable=False),
    Index("ix_webhook_event_pending", "account_id", postgresql_where=literal_column("status = 'pending'")),
    Index("ix_webhook_event_customer", "customer_id", postgresql_where=literal_column("status = 'pending'")),
)

billing_sync = Table(
    "billing_sync",
    metadata,
    Column("account_id", ForeignKey("account.id"), primary_key=True),
    Column("wanted", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("claim", Text),
    Column("claim_until", _INSTANT),
    Column("attempts", Integer, nullable=False),
    Column("next_time", _INSTANT, nullable=False),
    Column("error", Text, nullable=False),
    Index("ix_billing_sync_due", "next_time", postgresql_where=literal_column("wanted > done")),
)

# Accounts whose customer at Stripe is to be made as the account is here: its address, whose it is, or that it is gone.
customer_push = Table(
    "customer_push",
    metadata,
    Column("account_id", ForeignKey("account.id"), primary_key=True),
    Column("wanted", BigInteger, nullable=False),
    Column("hold_until", _INSTANT, nullable=False, index=True),
)

# How far a comparison of everything has come, and when the next one begins.
sweep = Table(
    "sweep",
    metadata,
    Column("name", Text, primary_key=True),
    Column("cursor", Text, nullable=False),
    Column("next_time", _INSTANT, nullable=False),
    Column("hold_until", _INSTANT, nullable=False),
)

# Stripe's price ids and their tiers, for ever: a changed catalog downgrades nobody.
price_tier = Table(
    "price_tier",
    metadata,
    Column("price_id", Text, primary_key=True),
    Column("lookup_key", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("on_sale", Boolean, nullable=False),  # the one that the lookup key names now
    Index("uq_price_tier_on_sale", "lookup_key", unique=True, postgresql_where=literal_column("on_sale")),
)

stripe_object = Table(
    "stripe_object",
    metadata,
    Column("kind", Text, primary_key=True),  # portal_configuration
    Column("id", Text, nullable=False),
)

signing_key = Table(
    "signing_key",
    metadata,
    Column("id", Text, primary_key=True),  # the JWS header's kid
    Column("private_key", LargeBinary, nullable=False),  # encrypted under TOLLWAY_SECRET_KEY
    Column("public_jwk", Text, nullable=False),
    Column("active_time", _INSTANT, nullable=False),
)

sign_up = Table(
    "sign_up",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("email", Text, nullable=False),
    Column("remote_address", Text, nullable=False),
    Column("create_time", _INSTANT, nullable=False),
    Index("ix_sign_up_email", "email", "create_time"),
    Index("ix_sign_up_remote_address", "remote_address", "create_time"),
)

# Answers to requests that carried an idempotency key, encrypted: one of them holds an API key.
idempotent_answer = Table(
    "idempotent_answer",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("create_time", _INSTANT, nullable=False, index=True),
)
