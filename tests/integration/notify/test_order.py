"""Events in any order, doubled and at once, straight to the use cases over a real PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit import migrate
from services.kit.database import create_engine
from services.kit.ids import new_id
from services.kit.inbox import Received
from services.notify import application, events
from services.notify.main import MIGRATIONS
from services.notify.storage import NotifyUnitOfWork
from tests.integration.notify.conftest import BRAND, failed, paid
from tests.integration.notify.test_kinds import LIMITS, canceled, cap, refunded, threshold
from tollway.billing.v1.events_pb2 import CANCELLATION_PHASE_ENDED, CANCELLATION_PHASE_SCHEDULED, AccountErased
from tollway.billing.v1.recipient_pb2 import Recipient


class Directory:
    async def recipient(self, account_id: str) -> Recipient:
        return Recipient(account_id=account_id, customer_email="ada@example.com", brand=BRAND, limits=LIMITS)


@pytest.fixture
async def engine(notify_database: str) -> AsyncIterator[AsyncEngine]:
    made = create_engine(notify_database)
    yield made
    await made.dispose()


def received(message: Message, event_id: str = "") -> Received:
    name = message.DESCRIPTOR.full_name
    return Received(event_id or new_id("evt"), name, events.account_of(message), datetime.now(UTC), message)


async def believe(event: Received, engine: AsyncEngine) -> None:
    if isinstance(event.message, AccountErased):
        await application.forget(event, event.account_id, NotifyUnitOfWork(engine))
    else:
        await application.believe(event, NotifyUnitOfWork(engine), Directory(), mail_domain="example.com")


async def rows(engine: AsyncEngine) -> list[Any]:
    async with engine.connect() as connection:
        return list((await connection.execute(text("SELECT * FROM messages ORDER BY id"))).all())


def matters() -> list[Message]:
    """Of each topic what says less and what says more, and things that stand alone."""
    return [
        failed(1),
        paid(1),
        *(threshold(percent) for percent in (50, 80, 100)),
        threshold(80, limit_name="cap", meters=["downloads"], used=400, limit=500),
        cap(500),
        canceled(CANCELLATION_PHASE_SCHEDULED),
        canceled(CANCELLATION_PHASE_ENDED),
        refunded(),
        failed(2),
    ]


async def test_in_any_order_doubled_and_at_once_what_says_most_of_each_topic_is_to_be_sent_and_only_that(
    engine: AsyncEngine,
) -> None:
    for seed in range(6):
        dice = random.Random(seed)
        heard = [received(message) for message in matters()]
        heard += heard[: dice.randint(1, len(heard))]  # redelivered under its id
        heard += [received(message) for message in dice.sample(matters(), 4)]  # told anew
        dice.shuffle(heard)
        await asyncio.gather(*(believe(event, engine) for event in heard))
        topics: dict[str, list[Any]] = defaultdict(list)
        for row in await rows(engine):
            topics[row.topic].append(row)
        assert {len(found) for found in topics.values()} == {1, 2, 3}
        for found in topics.values():
            waiting = [row.rank for row in found if row.state == "pending"]
            assert waiting == [max(row.rank for row in found)], (seed, found)
            assert {row.state for row in found} <= {"pending", "skipped"}
        async with engine.begin() as connection:
            await connection.execute(text("TRUNCATE messages, inbox, resends"))


async def test_an_erasure_among_the_accounts_events_leaves_nothing_of_its_people(engine: AsyncEngine) -> None:
    for seed in range(6):
        dice = random.Random(seed)
        heard = [received(message) for message in (*matters(), AccountErased(account_id="acct_1"))]
        heard += [received(paid(7, account_id="acct_2"))]
        dice.shuffle(heard)
        await asyncio.gather(*(believe(event, engine) for event in heard))
        kept = await rows(engine)
        others = [row for row in kept if row.account_id == "acct_2"]
        assert [row.recipient for row in others] == ["ada@example.com"]
        for row in kept:
            if row.account_id == "acct_1":
                assert (row.erased, row.recipient, row.event_data, row.recipient_data) == (True, "", b"", b"")
                assert row.state == "skipped"
        async with engine.begin() as connection:
            await connection.execute(text("TRUNCATE messages, inbox, resends, erased_accounts"))


async def test_what_an_earlier_release_kept_is_overtaken_like_what_this_one_keeps(
    database: str, tmp_path: Path
) -> None:
    before = tmp_path / "migrations"
    (before / "versions").mkdir(parents=True)
    shutil.copy(MIGRATIONS / "env.py", before)
    shutil.copy(MIGRATIONS / "versions" / "0001_messages.py", before / "versions")
    engine = create_engine(database)
    try:
        await migrate.upgrade(engine, before)
        kept = text(
            "INSERT INTO messages"
            " (id, account_id, kind, subject_id, recipient, state, message_id, event_type, event_data)"
            " VALUES (:id, 'acct_1', :kind, :about, 'ada@example.com', 'pending', :id, :type, :data)"
        )
        async with engine.begin() as connection:
            for kind, message in (("receipt", paid(1)), ("payment_failed", failed(2))):
                values = {"id": f"msg_{kind}", "kind": kind, "about": message.invoice.id}
                told = {"type": message.DESCRIPTOR.full_name, "data": message.SerializeToString()}
                await connection.execute(kept, values | told)
        await migrate.upgrade(engine, MIGRATIONS)
        for message in (failed(1), paid(2)):
            await believe(received(message), engine)
        states = {(row.kind, row.subject_id): row.state for row in await rows(engine)}
        assert states == {
            ("receipt", "in_1"): "pending",
            ("payment_failed", "in_1"): "skipped",
            ("payment_failed", "in_2"): "skipped",
            ("receipt", "in_2"): "pending",
        }
    finally:
        await engine.dispose()
