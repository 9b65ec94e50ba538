"""Encrypts what must be stored and may not be read: signing keys, and answers that hold an API key."""

from __future__ import annotations

import base64
import hmac

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Vault:
    """Fernet (AES-128-CBC with HMAC-SHA256) under a key derived from `TOLLWAY_SECRET_KEY`."""

    def __init__(self, secret_key: str) -> None:
        derived = HKDF(SHA256(), 32, salt=None, info=b"tollway billing vault v1").derive(secret_key.encode())
        self._fernet = Fernet(base64.urlsafe_b64encode(derived))

        self._marks = HKDF(SHA256(), 32, salt=None, info=b"tollway billing codes v1").derive(secret_key.encode())

    def mark(self, code: str) -> bytes:
        """HMAC-SHA256 of a short code: who reads its row cannot find the code by trying them all."""
        return hmac.digest(self._marks, code.encode(), "sha256")

    def seal(self, plain: bytes) -> bytes:
        return self._fernet.encrypt(plain)

    def open(self, sealed: bytes) -> bytes:
        """Raises cryptography.fernet.InvalidToken when another secret key sealed it."""
        return self._fernet.decrypt(sealed)
