"""Mail servers that are away or hang; crashes at the worst moments."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.integration.notify.conftest import Inboxes, Notify, Publish, made, new_stream, paid, serving, until
from tests.integration.notify.test_kinds import refunded
from tollway.notify.v1 import notify_pb2 as pb


@pytest.fixture
def inboxes(smtp_port: int) -> Iterator[Inboxes]:
    catcher = Inboxes()
    with serving(catcher, smtp_port):
        yield catcher


@pytest.fixture
async def make_notify(
    notify_database: str, nats_url: str, smtp_port: int, tmp_path: Path
) -> AsyncIterator[Callable[[], Notify]]:
    """Services on one database and a new stream."""
    await new_stream(nats_url)
    services: list[Notify] = []

    def make() -> Notify:
        services.append(made(tmp_path / f"notify{len(services)}", notify_database, nats_url, smtp_port))
        return services[-1]

    yield make
    for service in services:
        service.kill()


@pytest.fixture
async def notify(make_notify: Callable[[], Notify], inboxes: Inboxes) -> Notify:
    """A service of the test's own, which may be killed."""
    service = make_notify()
    await service.start()
    return service


@pytest.fixture
async def sql(notify_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(notify_database.replace("+asyncpg", ""))
    yield connection
    await connection.close()


async def test_a_server_that_is_away_costs_only_time(
    make_notify: Callable[[], Notify], smtp_port: int, publish: Publish
) -> None:
    notify = make_notify()
    await notify.start()
    await publish(paid())

    async def tried() -> bool:
        messages = (await notify.messages()).messages
        return bool(messages) and messages[0].attempt_count >= 1

    await until(tried)
    assert await notify.state("in_1") == "PENDING"
    catcher = Inboxes()
    with serving(catcher, smtp_port):
        await notify.reaches("SENT", "in_1")
    assert len(catcher.mails) == 1


async def test_a_recipient_whose_server_hangs_delays_nobody_else(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    inboxes.hang_for.add("slow@example.com")
    await publish(paid(1, customer_email="slow@example.com"))
    for number in range(2, 22):
        await publish(paid(number))
    await inboxes.wait(20, within=8)
    assert await notify.state("in_1") == "PENDING"


async def test_a_connection_lost_during_the_content_is_unknown_and_not_repeated(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    async def vanish() -> None:
        raise asyncio.CancelledError  # ends the server's side without an answer

    inboxes.on_content = vanish
    await publish(paid(1))
    await notify.reaches("UNKNOWN", "in_1")
    inboxes.on_content = None
    await publish(paid(2))
    await notify.reaches("SENT", "in_2")
    assert await notify.state("in_1") == "UNKNOWN"
    assert len(inboxes.mails) == 1


async def test_a_crash_before_handing_over_loses_nothing(
    notify: Notify, inboxes: Inboxes, publish: Publish, sql: asyncpg.Connection
) -> None:
    notify.arm("notify.claimed")
    await publish(paid())
    assert await notify.died() == -signal.SIGKILL
    # What the dead process claimed is free when its claim lapses; the test does not wait for that.
    await sql.execute("UPDATE messages SET claim_until = now() - interval '1 second'")
    await notify.start()
    await notify.reaches("SENT", "in_1")
    assert len(inboxes.mails) == 1


@pytest.mark.parametrize(("failpoint", "mails"), [("notify.sending", 0), ("notify.sent_unrecorded", 1)])
async def test_a_crash_between_handing_over_and_recording_is_unknown_and_never_two(
    notify: Notify, inboxes: Inboxes, publish: Publish, sql: asyncpg.Connection, failpoint: str, mails: int
) -> None:
    notify.arm(failpoint)
    await publish(paid(1))
    assert await notify.died() == -signal.SIGKILL
    await notify.start()
    assert await notify.state("in_1") == "PENDING"  # its holder may be alive and slow
    await sql.execute("UPDATE messages SET claim_until = now() - interval '1 second'")
    await notify.reaches("UNKNOWN", "in_1")
    await publish(paid(2))
    await notify.reaches("SENT", "in_2")
    assert len(inboxes.mails) == mails + 1
    unknown = (await notify.messages(state=pb.MESSAGE_STATE_UNKNOWN)).messages
    assert [m.subject_id for m in unknown] == ["in_1"]


async def test_a_crash_after_recording_repeats_nothing(notify: Notify, inboxes: Inboxes, publish: Publish) -> None:
    notify.arm("notify.recorded")
    await publish(paid(1))
    assert await notify.died() == -signal.SIGKILL
    await notify.start()
    await publish(paid(2))
    await notify.reaches("SENT", "in_2")
    assert await notify.state("in_1") == "SENT"
    assert len(inboxes.mails) == 2


async def test_a_crash_before_the_event_is_acknowledged_brings_no_second_mail(
    notify: Notify, inboxes: Inboxes, publish: Publish, sql: asyncpg.Connection
) -> None:
    notify.arm("inbox.notify.handled")
    event_id = await publish(paid(1))
    assert await notify.died() == -signal.SIGKILL
    await sql.execute("UPDATE messages SET claim_until = now() - interval '1 second' WHERE state = 'pending'")
    await notify.start()
    await publish(paid(1), event_id)
    await publish(paid(2))
    await notify.reaches("SENT", "in_2")
    await until(lambda: len(inboxes.mails) >= 2)
    assert len([m for m in inboxes.mails if "0001" in m["Subject"]]) == 1


async def test_a_database_lost_after_acceptance_is_told_once_it_is_back(
    notify: Notify, inboxes: Inboxes, publish: Publish, sql: asyncpg.Connection
) -> None:
    loop = asyncio.get_running_loop()
    cut: list[asyncpg.Record] = []

    async def cut_connections() -> None:
        inboxes.on_content = None
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tollway-notify'"
        cut.extend(await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(sql.fetch(query), loop)))

    inboxes.on_content = cut_connections
    await publish(paid())
    await notify.reaches("SENT", "in_1")
    assert cut
    assert len(inboxes.mails) == 1


async def test_kills_at_any_moment_send_no_mail_twice_and_forget_none(
    notify: Notify, inboxes: Inboxes, publish: Publish, sql: asyncpg.Connection
) -> None:
    dice = random.Random(7)
    count = 40

    async def publish_all() -> None:
        for number in range(1, count + 1):
            event = paid(number) if number % 2 else refunded(refund_id=f"re_{number}")
            event_id = await publish(event)
            await publish(event, event_id)
            await asyncio.sleep(0.03)  # spread over the kills

    publishing = asyncio.create_task(publish_all())
    for _ in range(6):
        await asyncio.sleep(dice.uniform(0.05, 0.4))  # the moment of the kill
        assert notify.process is not None
        notify.process.kill()
        await notify.died()
        await notify.start()
    await publishing

    async def settled() -> bool:
        # What dead processes held is let go at once; in life that takes 90 s.
        await sql.execute("UPDATE messages SET claim_until = now() - interval '1 second' WHERE state = 'sending'")
        states = await sql.fetch("SELECT state FROM messages")
        return len(states) == count and {row["state"] for row in states} <= {"sent", "unknown"}

    await until(settled, 60)
    sent = {row["message_id"] for row in await sql.fetch("SELECT message_id FROM messages WHERE state = 'sent'")}
    arrived = [mail["Message-ID"] for mail in inboxes.mails]
    assert len(arrived) == len(set(arrived))
    assert sent <= set(arrived)


async def test_two_replicas_send_each_mail_once(
    make_notify: Callable[[], Notify], inboxes: Inboxes, publish: Publish
) -> None:
    replicas = [make_notify(), make_notify()]
    await asyncio.gather(*(replica.start() for replica in replicas))
    for number in range(1, 51):
        await publish(paid(number))
    await inboxes.wait(50)
    await until(lambda: _all_sent(replicas[0], 50))
    assert len(inboxes.mails) == 50
    assert len({mail["Message-ID"] for mail in inboxes.mails}) == 50


async def _all_sent(notify: Notify, count: int) -> bool:
    return len((await notify.messages(state=pb.MESSAGE_STATE_SENT, page_size=500)).messages) == count


async def test_sigterm_ends_it_cleanly_and_lets_a_mail_finish(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def slow() -> None:
        loop.call_soon_threadsafe(arrived.set)
        await asyncio.sleep(1)  # a mail server that thinks for a second

    inboxes.on_content = slow
    await publish(paid())
    await arrived.wait()
    assert await asyncio.to_thread(notify.stop) == 0
    assert len(inboxes.mails) == 1
    await notify.start()
    assert await notify.state("in_1") == "SENT"
