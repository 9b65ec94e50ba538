"""A stream that lost everything is refilled from the outboxes, and a new subscriber hears of every account."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import nats
from nats.js.errors import NotFoundError

from services.kit.stream import NAME
from tests.e2e.test_cli_story import Terminal
from tests.e2e.world import World, until
from tollway.billing.v1.events_pb2 import EntitlementsChanged
from tollway.client import subscribe


async def test_a_lost_stream_is_refilled_and_nobody_acts_twice(world: World, tmp_path: Path) -> None:
    customer = await world.subscriber()
    await customer.send(3)
    client = await nats.connect(world.stack.nats_url)
    try:
        jetstream = client.jetstream()

        async def held() -> int:
            try:
                found: int = (await jetstream.stream_info(NAME)).state.messages
            except NotFoundError:
                return 0
            return found

        before = await held()
        await jetstream.delete_stream(NAME)  # as a server that lost its disk: the services make it anew
        terminal = Terminal(world, tmp_path / "home", TOLLWAY_OPERATOR_TOKEN=world.stack.operator_token)
        told = (await terminal.json("events", "republish"))["events"]
        assert told["billing"] > 0
        await terminal.json("events", "republish")  # twice is once
        await until(held, lambda messages: messages >= before)
    finally:
        await client.close()
    # Everybody has heard it again, and acted once: one receipt, one count. The module's check looks at the rest.
    await customer.send()
    assert (await customer.messages())["used"] == 4
    assert len(await customer.receipts(1)) == 1


async def test_a_new_subscriber_hears_of_every_account_with_the_version_that_it_has(
    world: World, tmp_path: Path
) -> None:
    customer = await world.subscriber()
    terminal = Terminal(world, tmp_path / "home", TOLLWAY_OPERATOR_TOKEN=world.stack.operator_token)
    count = (await terminal.json("events", "snapshot"))["accounts"]
    (row,) = await world.rows("billing", "SELECT count(*) FROM account")
    assert count == row[0]
    (state,) = await world.rows("billing", "SELECT version, tier FROM entitlement WHERE account_id = $1", customer.id)
    events = subscribe(world.stack.nats_url, EntitlementsChanged, account=customer.id, wait_s=30)
    async with asyncio.timeout(60), aclosing(events) as heard:
        async for event in heard:
            if event.message.snapshot:
                told = event.message.entitlements
                assert (told.version, told.tier) == tuple(state)
                return
