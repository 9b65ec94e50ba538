"""Caught mails on disk, newest first."""

from __future__ import annotations

import json
import secrets
import sqlite3
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_ALPHABET = string.ascii_letters + string.digits
_SCHEMA = """
CREATE TABLE IF NOT EXISTS mail (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  caught_at TEXT NOT NULL,
  sender TEXT NOT NULL,
  recipients TEXT NOT NULL,
  read INTEGER NOT NULL DEFAULT 0,
  raw BLOB NOT NULL
)
"""


@dataclass(frozen=True)
class Mail:
    """One mail as it came: the envelope and the bytes."""

    id: str
    caught_at: datetime  # UTC
    sender: str
    recipients: Sequence[str]
    read: bool
    raw: bytes


class Store:
    """The mails in `folder/mailbox.sqlite`. A mail is on disk when `add` returns."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._db = sqlite3.connect(folder / "mailbox.sqlite", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(_SCHEMA)

    def add(self, sender: str, recipients: Iterable[str], raw: bytes) -> str:
        """Keeps a mail and gives its id."""
        identifier = "".join(secrets.choice(_ALPHABET) for _ in range(22))
        self._db.execute(
            "INSERT INTO mail (id, caught_at, sender, recipients, raw) VALUES (?, ?, ?, ?, ?)",
            (identifier, datetime.now(UTC).isoformat(), sender, json.dumps(list(recipients)), raw),
        )
        return identifier

    def all(self) -> list[Mail]:
        return self._select("ORDER BY number DESC", ())

    def page(self, start: int, limit: int) -> list[Mail]:
        return self._select("ORDER BY number DESC LIMIT ? OFFSET ?", (limit, start))

    def get(self, identifier: str) -> Mail | None:
        """The mail of that id; `latest` is the newest one."""
        found = self.page(0, 1) if identifier == "latest" else self._select("WHERE id = ?", (identifier,))
        return found[0] if found else None

    def counts(self) -> tuple[int, int]:
        """How many there are, and how many of them are unread."""
        total, read = self._db.execute("SELECT count(*), coalesce(sum(read), 0) FROM mail").fetchone()
        return total, total - read

    def mark(self, identifiers: Sequence[str], *, read: bool) -> None:
        """Marks these mails, or all of them if none is named."""
        if not identifiers:
            self._db.execute("UPDATE mail SET read = ?", (read,))
        self._db.executemany("UPDATE mail SET read = ? WHERE id = ?", [(read, one) for one in identifiers])

    def delete(self, identifiers: Sequence[str]) -> None:
        """Removes these mails, or all of them if none is named."""
        if not identifiers:
            self._db.execute("DELETE FROM mail")
        self._db.executemany("DELETE FROM mail WHERE id = ?", [(one,) for one in identifiers])

    def close(self) -> None:
        self._db.close()

    def _select(self, rest: str, values: tuple[object, ...]) -> list[Mail]:
        rows = self._db.execute(
            f"SELECT id, caught_at, sender, recipients, read, raw FROM mail {rest}",  # noqa: S608 - ours
            values,
        )
        return [
            Mail(identifier, datetime.fromisoformat(at), sender, json.loads(recipients), bool(read), raw)
            for identifier, at, sender, recipients, read, raw in rows
        ]
