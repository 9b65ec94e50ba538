"""Durable state: every object as the JSON that Stripe would show, in one SQLite file.

Names that begin with an underscore are the sandbox's own and never leave it. One thread, one connection: a request
is one transaction, so no two requests interleave.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, created INTEGER NOT NULL,
  customer TEXT, ref TEXT, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS objects_kind ON objects (kind, seq);
CREATE INDEX IF NOT EXISTS objects_customer ON objects (kind, customer, seq);
CREATE INDEX IF NOT EXISTS objects_ref ON objects (kind, ref, seq);
CREATE TABLE IF NOT EXISTS jobs (
  object TEXT NOT NULL, task TEXT NOT NULL, clock TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (object, task)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_due ON jobs (clock, at);
CREATE TABLE IF NOT EXISTS idempotency (
  key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
  request TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries (
  id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, endpoint TEXT NOT NULL, status TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, last_status INTEGER, last_error TEXT);
CREATE INDEX IF NOT EXISTS deliveries_event ON deliveries (event);
CREATE INDEX IF NOT EXISTS deliveries_status ON deliveries (status, next_at);
CREATE TABLE IF NOT EXISTS meter_events (
  identifier TEXT NOT NULL, event_name TEXT NOT NULL, customer TEXT, at INTEGER NOT NULL, value TEXT NOT NULL,
  created INTEGER NOT NULL, problem TEXT);
CREATE INDEX IF NOT EXISTS meter_events_identifier ON meter_events (identifier);
CREATE INDEX IF NOT EXISTS meter_events_use ON meter_events (customer, event_name, at);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

# The object that an object hangs on, beside its customer: what lists are filtered by.
_PARENT: dict[str, Callable[[Json], Any]] = {
    "invoice": lambda o: ((o.get("parent") or {}).get("subscription_details") or {}).get("subscription"),
    "invoice_payment": lambda o: o.get("invoice"),
    "invoiceitem": lambda o: o.get("_subscription"),
    "price": lambda o: o.get("lookup_key"),
    "charge": lambda o: o.get("payment_intent"),
    "event": lambda o: o.get("type"),
    "checkout.session": lambda o: o.get("subscription"),
    "customer": lambda o: o.get("email"),
    "promotion_code": lambda o: o["code"].upper(),
    "billing.meter": lambda o: o["event_name"],
    "refund": lambda o: o.get("charge"),
    "dispute": lambda o: o.get("charge"),
}


def encode(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Store:
    def __init__(self, directory: Path) -> None:
        """Opens the state in `directory`. Raises RuntimeError if another sandbox holds it."""
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = (directory / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RuntimeError(f"another sandbox is using {directory}") from None
        self.db = sqlite3.connect(directory / "stripe.sqlite3", isolation_level=None, check_same_thread=False)
        # NORMAL in WAL survives the process's death; only the machine's could lose the last commits.
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.executescript(_SCHEMA)

    def close(self) -> None:
        self.db.close()
        self._lock.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def get(self, object_id: str, kind: str | None = None) -> Json | None:
        row = self.db.execute("SELECT kind, body FROM objects WHERE id = ?", (object_id,)).fetchone()
        if row is None or (kind is not None and row[0] != kind):
            return None
        body: Json = json.loads(row[1])
        return body

    def put(self, obj: Json) -> None:
        kind = obj["object"]
        customer = obj["id"] if kind == "customer" else obj.get("customer")
        parent = _PARENT.get(kind)
        self.db.execute(
            "INSERT INTO objects (id, kind, created, customer, ref, body) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET customer = excluded.customer, ref = excluded.ref, body = excluded.body",
            (obj["id"], kind, obj.get("created", 0), customer, parent(obj) if parent else None, encode(obj)),
        )

    def remove(self, object_id: str) -> None:
        self.db.execute("DELETE FROM objects WHERE id = ?", (object_id,))
        self.cancel_jobs(object_id)

    def all(self, kind: str, *, customer: str | None = None, ref: str | None = None) -> list[Json]:
        """Oldest first."""
        where, values = ["kind = ?"], [kind]
        if customer is not None:
            where.append("customer = ?")
            values.append(customer)
        if ref is not None:
            where.append("ref = ?")
            values.append(ref)
        rows = self.db.execute(
            f"SELECT body FROM objects WHERE {' AND '.join(where)} ORDER BY seq",  # noqa: S608 - constants
            values,
        )
        return [json.loads(row[0]) for row in rows]

    def page(
        self, kind: str, conditions: list[tuple[str, list[Any]]], *, limit: int, after: str | None, before: str | None
    ) -> tuple[list[Json], bool]:
        """A page, newest first, and whether there is more in the direction of travel."""
        where, values = ["kind = ?"], [kind]
        for sql, args in conditions:
            where.append(sql)
            values.extend(args)
        order = "DESC"
        if after is not None:
            where.append("seq < (SELECT seq FROM objects WHERE id = ?)")
            values.append(after)
        if before is not None:
            where.append("seq > (SELECT seq FROM objects WHERE id = ?)")
            values.append(before)
            order = "ASC"
        rows = self.db.execute(
            f"SELECT body FROM objects WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT ?",  # noqa: S608
            [*values, limit + 1],
        ).fetchall()
        found = [json.loads(row[0]) for row in rows[:limit]]
        if before is not None:
            found.reverse()
        return found, len(rows) > limit

    # Work that a clock will reach.

    def schedule(self, object_id: str, task: str, clock: str | None, at: int) -> None:
        self.db.execute(
            "INSERT INTO jobs VALUES (?, ?, ?, ?)"
            " ON CONFLICT (object, task) DO UPDATE SET clock = excluded.clock, at = excluded.at",
            (object_id, task, clock or "", at),
        )

    def cancel_jobs(self, object_id: str, task: str | None = None) -> None:
        if task is None:
            self.db.execute("DELETE FROM jobs WHERE object = ?", (object_id,))
        else:
            self.db.execute("DELETE FROM jobs WHERE object = ? AND task = ?", (object_id, task))

    def next_due(self, clock: str | None) -> int | None:
        row = self.db.execute("SELECT min(at) FROM jobs WHERE clock = ?", (clock or "",)).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def first_due(self, clock: str | None, at: int) -> tuple[str, str, int] | None:
        """The (object, task, time) that fell due first, at `at` or before."""
        row = self.db.execute(
            "SELECT object, task, at FROM jobs WHERE clock = ? AND at <= ? ORDER BY at, object, task LIMIT 1",
            (clock or "", at),
        ).fetchone()
        return None if row is None else (row[0], row[1], int(row[2]))

    # Settings and counters of the sandbox itself.

    def setting(self, name: str, default: Any) -> Any:
        row = self.db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return default if row is None else json.loads(row[0])

    def set_setting(self, name: str, value: Any) -> None:
        self.db.execute(
            "INSERT INTO settings VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, encode(value)),
        )


def public(obj: Mapping[str, Any]) -> Json:
    """The object without the sandbox's own fields."""
    return {key: value for key, value in obj.items() if not key.startswith("_")}
