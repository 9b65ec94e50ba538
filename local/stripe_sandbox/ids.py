"""Identifiers in Stripe's shapes."""

from __future__ import annotations

import secrets
import string

_ALPHABET = string.digits + string.ascii_letters
_UPPER = string.ascii_uppercase + string.digits
# Prefix: characters after it. Lengths as seen in Stripe's documentation.
_LENGTHS = {"cus": 14, "prod": 14, "si": 14, "req": 14, "cs_test": 58, "whsec": 32, "ii": 24}


def new(prefix: str) -> str:
    length = _LENGTHS.get(prefix, 24)
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(length))


def invoice_prefix() -> str:
    return "".join(secrets.choice(_UPPER) for _ in range(8))
