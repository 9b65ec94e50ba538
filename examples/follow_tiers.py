"""Keeps a table of every account's tier in a database of its own, for a product that wants to look there.

    export TOLLWAY_NATS_URL=nats://127.0.0.1:14222     # as `make run` has it
    python examples/follow_tiers.py tiers.sqlite

Events come at least once and in any order. Two rules make the table right all the same: an event's id is noted in the
transaction of its effect, and an older version never replaces a newer one. To start with every account instead of
waiting for changes: `tollway events snapshot`, which announces EntitlementsChanged for each.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys

from tollway.billing.v1.events_pb2 import EntitlementsChanged
from tollway.client import subscribe

SCHEMA = """
CREATE TABLE IF NOT EXISTS tier (account_id TEXT PRIMARY KEY, tier TEXT NOT NULL, version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS seen (event_id TEXT PRIMARY KEY);
"""
NEWER = """
INSERT INTO tier VALUES (?, ?, ?) ON CONFLICT (account_id) DO UPDATE
  SET tier = excluded.tier, version = excluded.version WHERE excluded.version > tier.version
"""


def apply(database: sqlite3.Connection, event_id: str, change: EntitlementsChanged) -> bool:
    """Notes the event and its effect in one transaction. False: it was seen before."""
    now = change.entitlements
    with database:
        noted = database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (event_id,))
        if noted.rowcount == 0:
            return False
        database.execute(NEWER, (now.account_id, now.tier, now.version))
    return True


async def main(path: str) -> None:
    database = sqlite3.connect(path)
    database.executescript(SCHEMA)
    async for event in subscribe(os.environ["TOLLWAY_NATS_URL"], EntitlementsChanged, durable="follow-tiers"):
        if apply(database, event.id, event.message):
            now = event.message.entitlements
            print(f"{now.account_id} {now.tier} (version {now.version})", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
