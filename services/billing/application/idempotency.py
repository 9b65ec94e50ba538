"""Requests that carry a key of their caller's: one key, one request, one answer, for 24 hours."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from services.billing.errors import IdempotencyKeyReused
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.secrets import Answer
from services.billing.vault import Vault
from services.kit.errors import InvalidArgument

KEPT = timedelta(hours=24)
_LONGEST = 255


def checked_request_id(request_id: str) -> str:
    """Raises InvalidArgument naming `request_id`."""
    if len(request_id) > _LONGEST or not request_id.isprintable():
        raise InvalidArgument(f"At most {_LONGEST} printable characters are expected.", field="request_id")
    return request_id


def fingerprint(*fields: str) -> bytes:
    """SHA-256 that tells two requests apart; no two lists of fields have the same."""
    return hashlib.sha256(repr(fields).encode()).digest()


async def find(scope: str, request_id: str, mark: bytes, uow: BillingUnitOfWork, vault: Vault) -> bytes | None:
    """What was answered under this key, or None for a new one; a second request under it waits for the first.

    Raises IdempotencyKeyReused when the key belongs to another request.
    """
    earlier = await uow.answers.find(scope, request_id)
    if earlier is None:
        return None
    if earlier.fingerprint != mark:
        raise IdempotencyKeyReused("This idempotency key was used for another request.", field="request_id")
    return vault.open(earlier.answer)


async def keep(
    scope: str, request_id: str, mark: bytes, answer: bytes, uow: BillingUnitOfWork, vault: Vault, now: datetime
) -> None:
    """Stores the answer in the transaction that makes it true."""
    await uow.answers.add(scope, request_id, Answer(mark, vault.seal(answer)), now)
