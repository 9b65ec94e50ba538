"""The merchant's own account and balance."""

from __future__ import annotations

from .context import Context
from .errors import missing
from .routing import get
from .store import Json

ACCOUNT_ID = "acct_1SandboxSandbox00"


@get("/v1/account")
def retrieve(ctx: Context, params: Json) -> Json:
    name = ctx.store.setting("business_name", "Sandbox")
    return {
        "id": ACCOUNT_ID,
        "object": "account",
        "business_profile": {"mcc": None, "name": name, "support_email": None, "support_url": None, "url": None},
        "business_type": "company",
        "capabilities": {"card_payments": "active", "transfers": "active"},
        "charges_enabled": True,
        "country": "US",
        "created": 1_700_000_000,
        "default_currency": "usd",
        "details_submitted": True,
        "email": None,
        "metadata": {},
        "payouts_enabled": True,
        "type": "standard",
    }


@get("/v1/accounts/{account}")
def retrieve_by_id(ctx: Context, params: Json, account: str) -> Json:
    if account != ACCOUNT_ID:
        raise missing("account", account)
    return retrieve(ctx, params)


@get("/v1/balance")
def balance(ctx: Context, params: Json) -> Json:
    """What was charged and not refunded, by currency; nothing is ever paid out."""
    rows = ctx.store.db.execute(
        "SELECT json_extract(body, '$.currency'), sum(json_extract(body, '$.amount_captured')"
        " - json_extract(body, '$.amount_refunded')) FROM objects WHERE kind = 'charge' GROUP BY 1"
    ).fetchall()
    amounts = [
        {"amount": int(total), "currency": currency, "source_types": {"card": int(total)}} for currency, total in rows
    ] or [{"amount": 0, "currency": "usd", "source_types": {"card": 0}}]
    return {"object": "balance", "available": amounts, "livemode": False, "pending": []}
