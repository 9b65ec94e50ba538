"""Idempotency keys: the first answer to a key, status and body, is every later answer for a day
(https://docs.stripe.com/api/idempotent_requests)."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from .errors import ApiError
from .store import Store

_KEPT_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Replay:
    status: int
    body: bytes
    request_id: str


def fingerprint(method: str, path: str, body: bytes) -> str:
    return hashlib.sha256(f"{method} {path}\n".encode() + body).hexdigest()


def find(store: Store, key: str, print_: str, path: str) -> Replay | None:
    """The stored answer. Raises idempotency_error if the key was used for something else."""
    if len(key) > 255:
        raise ApiError("Idempotency keys can be at most 255 characters.", kind="idempotency_error", executed=False)
    row = store.db.execute(
        "SELECT fingerprint, status, body, request FROM idempotency WHERE key = ? AND created > ?",
        (key, time.time() - _KEPT_SECONDS),
    ).fetchone()
    if row is None:
        return None
    if row[0] != print_:
        raise ApiError(
            "Keys for idempotent requests can only be used with the same parameters they were first used with. Try"
            f" using a key other than '{key}' if you meant to execute a different request.",
            kind="idempotency_error",
            executed=False,
        )
    return Replay(row[1], row[2].encode(), row[3])


def keep(store: Store, key: str, print_: str, status: int, body: bytes, request_id: str) -> None:
    store.db.execute(
        "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?, ?)",
        (key, print_, status, body.decode(), request_id, time.time()),
    )


def busy(key: str) -> ApiError:
    return ApiError(
        f"There is currently another in-progress request using this Idempotent Key (that probably means you submitted"
        f" twice, and the other request is still going through): {key}. Please try again later.",
        status=409,
        kind="idempotency_error",
        code="idempotency_key_in_use",
        executed=False,
    )


def forget_old(store: Store) -> None:
    store.db.execute("DELETE FROM idempotency WHERE created <= ?", (time.time() - _KEPT_SECONDS,))
