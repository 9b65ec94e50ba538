"""Identifiers in Stripe's shapes."""

from __future__ import annotations

import secrets
import string

_ALPHABET = string.digits + string.ascii_letters
# Each byte as a character. Some come a little oftener than others, which ids can bear.
_LETTERS = bytes(ord(_ALPHABET[byte % len(_ALPHABET)]) for byte in range(256))
_UPPER = string.ascii_uppercase + string.digits
# Prefix: characters after it. Lengths as seen in Stripe's documentation.
_LENGTHS = {"cus": 14, "prod": 14, "si": 14, "req": 14, "cs_test": 58, "whsec": 32, "ii": 24}


def new(prefix: str) -> str:
    return f"{prefix}_{secrets.token_bytes(_LENGTHS.get(prefix, 24)).translate(_LETTERS).decode()}"


def invoice_prefix() -> str:
    return "".join(secrets.choice(_UPPER) for _ in range(8))
