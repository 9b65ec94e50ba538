"""Identifiers: a prefix that says what it names and a time-ordered UUID (RFC 9562, version 7) in hexadecimal."""

from __future__ import annotations

from uuid_utils import uuid7


def new_id(prefix: str) -> str:
    """`new_id("acct")` → `acct_019ab…`: prefix, underscore, 32 hexadecimal digits."""
    return f"{prefix}_{uuid7().hex}"
