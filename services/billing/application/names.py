"""Names as people type them, and slugs made of them."""

from __future__ import annotations

import re
import secrets
import unicodedata
from dataclasses import replace

from services.billing.storage import BillingUnitOfWork
from services.billing.storage.accounts import Account
from services.kit.errors import InvalidArgument

LONGEST = 100


def checked_name(name: str) -> str:
    """The name without space around it. Raises InvalidArgument naming `name`."""
    name = name.strip()
    if not 1 <= len(name) <= LONGEST:
        raise InvalidArgument(f"A name of 1 to {LONGEST} characters is expected.", field="name")
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in name):
        raise InvalidArgument("A name has no control characters or line breaks.", field="name")
    return name


def slug_of(name: str) -> str:
    """Lower-case ASCII letters, digits and single hyphens, at most 40; `account` when nothing is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "account"


async def add_with_free_slug(account: Account, uow: BillingUnitOfWork) -> Account:
    """Adds the account; when its slug is taken, under that slug with a few random characters behind it."""
    added = account
    while not await uow.accounts.add(added):
        added = replace(account, slug=f"{account.slug}-{secrets.token_hex(3)}")
    return added
