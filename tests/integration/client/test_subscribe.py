"""Subscribers over a real stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import nats
import pytest
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.message import Message
from nats.js.errors import NotFoundError

from local import ports
from services.kit.outbox import Envelope
from services.kit.stream import NAME, Stream
from tests.integration.cli.conftest import Cli, cli  # noqa: F401
from tollway.billing.v1.entitlement_pb2 import Entitlements
from tollway.billing.v1.events_pb2 import EntitlementsChanged, TierChanged
from tollway.client import events as events_module
from tollway.client import subscribe

ROOT = Path(__file__).parents[3]
Publish = Callable[..., Awaitable[str]]


@pytest.fixture
async def publish(nats_url: str) -> AsyncIterator[Publish]:
    """Publishes as the services' relay does, into a stream that is new; returns the event's id."""
    client = await nats.connect(nats_url)
    with contextlib.suppress(NotFoundError):
        await client.jetstream().delete_stream(NAME)
    await client.close()
    stream = Stream(nats_url, name="test")
    stream.start()

    async def send(message: Message, account: str = "acct_1", kind: str = "") -> str:
        envelope = Envelope.of(message, account)
        headers = envelope.headers() | ({"ce-type": kind} if kind else {})
        await stream.publish(envelope.subject, envelope.data, headers)
        return envelope.id

    yield send
    await stream.close()


def change(version: int, account: str = "acct_1") -> TierChanged:
    return TierChanged(account_id=account, version=version, previous_tier="free", tier="pro", status="active")


async def test_events_arrive_typed_with_their_attributes(nats_url: str, publish: Publish) -> None:
    await publish(EntitlementsChanged(entitlements=Entitlements(account_id="acct_1")))
    event_id = await publish(change(7))
    async with aclosing(subscribe(nats_url, TierChanged, durable="typed")) as events:
        async for event in events:
            assert event.message.version == 7
            assert (event.id, event.account_id, event.redelivered) == (event_id, "acct_1", False)
            assert event.type == "tollway.billing.v1.TierChanged"
            break


async def test_a_durable_name_goes_on_where_it_was_and_gets_again_what_it_did_not_finish(
    nats_url: str, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2, 3):
        await publish(change(version))
    seen: list[int] = []

    async def crash_at_the_second() -> None:
        async with aclosing(subscribe(nats_url, TierChanged, durable="goes-on")) as events:
            async for event in events:
                seen.append(event.message.version)
                if event.message.version == 2:
                    raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        await crash_at_the_second()
    # What was not finished comes again after the acknowledgement's time; the test does not wait 30 s for it.
    monkeypatch.setattr(events_module, "ACK_WAIT_S", 1.0)
    again: list[tuple[int, bool]] = []
    async with aclosing(subscribe(nats_url, TierChanged, durable="goes-on")) as events:
        async for event in events:
            again.append((event.message.version, event.redelivered))
            if len(again) == 2:
                await event.ack()
                break
    assert seen == [1, 2]
    assert sorted(again) == [(2, True), (3, False)]


async def test_two_under_one_name_share_the_work_and_other_names_get_it_all(nats_url: str, publish: Publish) -> None:
    seen: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    complete = asyncio.Event()

    async def follow(who: str, durable: str) -> None:
        async with aclosing(subscribe(nats_url, TierChanged, durable=durable)) as events:
            async for event in events:
                seen[who].append(event.message.version)
                if len(seen["a"]) + len(seen["b"]) >= 40 and len(seen["c"]) >= 40:
                    complete.set()

    tasks = [asyncio.create_task(follow(*each)) for each in (("a", "shared"), ("b", "shared"), ("c", "alone"))]
    for version in range(40):
        await publish(change(version))
    async with asyncio.timeout(20):
        await complete.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(seen["a"] + seen["b"]) == list(range(40)) == sorted(seen["c"])


async def test_one_account_can_be_followed_alone(nats_url: str, publish: Publish) -> None:
    await publish(change(1, "acct_1"), "acct_1")
    await publish(change(2, "acct_2"), "acct_2")
    async with aclosing(subscribe(nats_url, TierChanged, account="acct_2")) as events:
        assert (await anext(events)).message.version == 2


async def test_starting_now_skips_what_was(nats_url: str, publish: Publish) -> None:
    await publish(change(1))
    async with aclosing(subscribe(nats_url, TierChanged, start="now")) as events:
        first = asyncio.ensure_future(anext(events))
        version = 2
        while not first.done():  # the subscription stands at some moment; what comes after it arrives
            await publish(change(version))
            version += 1
            await asyncio.wait([first], timeout=0.05)
        assert (await first).message.version >= 2


async def test_a_type_of_a_later_release_comes_as_any(nats_url: str, publish: Publish) -> None:
    await publish(change(1), kind="tollway.billing.v1.FromTheFuture")
    async with aclosing(subscribe(nats_url)) as events:
        event = await anext(events)
    assert isinstance(event.message, AnyProto)
    assert event.message.type_url == "tollway.billing.v1.FromTheFuture"


async def test_a_stream_made_later_is_waited_for(nats_url: str, publish: Publish) -> None:
    await publish(change(0))
    client = await nats.connect(nats_url)
    await client.jetstream().delete_stream(NAME)
    await client.close()
    async with aclosing(subscribe(nats_url, TierChanged, durable="early")) as events:
        first = asyncio.ensure_future(anext(events))
        await asyncio.wait([first], timeout=0.7)
        await publish(change(1))
        assert (await asyncio.wait_for(first, 10)).message.version == 1


async def test_no_server_is_said_after_the_time_one_is_willing_to_wait() -> None:
    with pytest.raises(ConnectionError):
        await anext(subscribe(f"nats://127.0.0.1:{ports.reserve()}", wait_s=0.3))


@pytest.mark.parametrize("name", ["", "a.b", "a b", ">", "a*"])
async def test_what_cannot_be_a_name_is_refused(nats_url: str, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        await anext(subscribe(nats_url, account=name))


async def test_the_documents_subscriber_runs(nats_url: str, publish: Publish, tmp_path: Path) -> None:
    document = (ROOT / "docs" / "events.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    assert len(blocks) == 1
    assert sum(bool(line.strip()) for line in blocks[0].splitlines()) <= 10
    program = tmp_path / "subscriber.py"
    program.write_text(blocks[0])
    await publish(change(1))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(program),
        env=os.environ | {"TOLLWAY_NATS_URL": nats_url, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert (await process.stdout.readline()).decode() == "acct_1: free -> pro\n"
    finally:
        process.kill()
        await process.communicate()


async def test_events_tail_prints_a_line_or_a_json_object_for_each(
    nats_url: str,
    publish: Publish,
    cli: Cli,  # noqa: F811
) -> None:
    event_id = await publish(change(3))
    await publish(EntitlementsChanged(entitlements=Entitlements(account_id="acct_1")))
    tail = ["events", "tail", "--from-start", "--nats-url", nats_url]
    line = (await asyncio.to_thread(cli, *tail, "--limit", "1")).stdout
    assert re.fullmatch(r"\S+Z  TierChanged  acct_1  version=3 previous_tier=free tier=pro status=active\n", line)
    shown = await asyncio.to_thread(cli, *tail, "--limit", "1", "--json", "--type", "TierChanged")
    event = json.loads(shown.stdout)
    assert event["id"] == event_id
    assert event["data"]["tier"] == "pro"
    shown = await asyncio.to_thread(cli, *tail, "--limit", "1", "--json", "--type", "EntitlementsChanged")
    assert json.loads(shown.stdout)["type"] == "tollway.billing.v1.EntitlementsChanged"


async def test_events_tail_without_a_server_is_5(cli: Cli) -> None:  # noqa: F811
    where = f"nats://user:secret@127.0.0.1:{ports.reserve()}"
    done = await asyncio.to_thread(cli, "events", "tail", "--nats-url", where, code=5)
    assert "no NATS server answers" in done.stderr
    assert "secret" not in done.stderr


async def test_the_example_that_follows_tiers_keeps_the_newest_through_kills_and_disorder(
    nats_url: str, publish: Publish, tmp_path: Path
) -> None:
    table = tmp_path / "tiers.sqlite"

    async def follow(until: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "examples" / "follow_tiers.py"),
            str(table),
            env=os.environ | {"TOLLWAY_NATS_URL": nats_url, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(60):
                while (line := (await process.stdout.readline()).decode().strip()) != until:
                    assert line
        finally:
            process.kill()
            await process.communicate()

    async def entitled(version: int, tier: str) -> None:
        now = Entitlements(account_id="acct_1", version=version, tier=tier)
        await publish(EntitlementsChanged(entitlements=now))

    await entitled(2, "pro")
    await follow("acct_1 pro (version 2)")  # killed before it could say that it is done: the event comes again
    await entitled(5, "scale")
    await entitled(4, "free")
    await follow("acct_1 free (version 4)")
    with contextlib.closing(sqlite3.connect(table)) as database:
        assert database.execute("SELECT * FROM tier").fetchall() == [("acct_1", "scale", 5)]
        assert database.execute("SELECT count(*) FROM seen").fetchone() == (3,)
