"""Base62 numbers and the checksum at the end of an API key: whoever sees a key can refuse a mistyped one unasked."""

from __future__ import annotations

import zlib

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CHECK_DIGITS = 6  # base62 digits for a CRC32


def base62(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits


def checksum(text: str) -> str:
    """The CRC32 of the text in UTF-8, as `CHECK_DIGITS` base62 digits."""
    return base62(zlib.crc32(text.encode()), CHECK_DIGITS)
