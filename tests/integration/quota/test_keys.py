"""Keys on PostgreSQL and NATS: what KeyIssued told needs no billing; what it did not is asked and kept."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from google.protobuf.message import Message
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.billing.domain.api_key import NewKey, new_key
from services.kit.outbox import Envelope
from services.kit.stream import Stream
from services.quota import keys
from services.quota.ports import KeyOwner
from tests.integration.quota import envoy_world, world
from tollway.billing.v1 import events_pb2
from tollway.envoy.auth.v3 import external_auth_pb2 as pb
from tollway.envoy.auth.v3 import external_auth_pb2_grpc


async def check(address: str, secret: str) -> int:
    """The HTTP status of a request with this key; 200 when it passes."""
    http = pb.AttributeContext.HttpRequest(path="/", headers={"authorization": f"Bearer {secret}"})
    attributes = pb.AttributeContext(
        request=pb.AttributeContext.Request(http=http), context_extensions={"meter": "messages"}
    )
    async with grpc.aio.insecure_channel(address) as channel:
        await asyncio.wait_for(channel.channel_ready(), 20)
        stub = external_auth_pb2_grpc.AuthorizationStub(channel)
        answer = await stub.Check(pb.CheckRequest(attributes=attributes), timeout=10)
    assert (answer.status.code == 0) == answer.HasField("ok_response")
    return answer.denied_response.status.code or 200


def revoked(key: NewKey, account: str) -> events_pb2.KeyRevoked:
    message = events_pb2.KeyRevoked(account_id=account, key_id=f"key_{account}", kind="live", key_hash=key.hash)
    message.revoke_time.GetCurrentTime()
    return message


def issued(key: NewKey, account: str) -> events_pb2.KeyIssued:
    return events_pb2.KeyIssued(account_id=account, key_id=f"key_{account}", kind="live", key_hash=key.hash)


async def test_a_key_that_was_announced_opens_the_door_while_billing_is_away(
    tmp_path: Path, database: str, nats_url: str
) -> None:
    account, key = f"acct_{tmp_path.name}", new_key("sk_live_")
    stream = Stream(nats_url, name="test")
    stream.start()
    with world.process(tmp_path, database, nats_url=nats_url) as quota:
        for message in (
            events_pb2.EntitlementsChanged(entitlements=world.entitlements(account, limit=1)),
            issued(key, account),
            issued(key, account),  # the same fact twice, as two events
        ):
            envelope = Envelope.of(message, account)
            await stream.publish(envelope.subject, envelope.data, envelope.headers())
        async with asyncio.timeout(20):
            # Until the events are here, billing would have to be asked, and it is away.
            while (status := await check(quota.address, key.secret)) == 503:
                pass
        assert status == 200
        assert await check(quota.address, key.secret) == 402
        assert await check(quota.address, new_key("sk_live_").secret) == 503
    await stream.close()


async def ended(key: NewKey, engine: AsyncEngine) -> None:
    """Returns when the table knows that the key has an end; memory may have heard it before."""
    async with asyncio.timeout(20):
        while True:
            async with world.unit_of_work(engine) as uow:
                if (await uow.keys.find([key.hash]))[key.hash].end_time is not None:
                    return
            await asyncio.sleep(0.02)  # between looks at a table there is nothing to await


async def test_a_revoked_key_is_refused_at_envoy_as_soon_as_the_event_is_here_whatever_came_first(
    tmp_path: Path, database: str, nats_url: str
) -> None:
    account, key, early = f"acct_{tmp_path.name}", new_key("sk_live_"), new_key("sk_live_")
    stream = Stream(nats_url, name="test")
    stream.start()

    async def tell(message: Message) -> None:
        envelope = Envelope.of(message, account)
        await stream.publish(envelope.subject, envelope.data, envelope.headers())

    with world.process(tmp_path, database, nats_url=nats_url) as quota:
        await tell(events_pb2.EntitlementsChanged(entitlements=world.entitlements(account)))
        await tell(revoked(early, account))  # overtook its KeyIssued
        await tell(issued(early, account))
        await tell(issued(key, account))
        async with asyncio.timeout(20):
            while await check(quota.address, key.secret) != 200:
                pass
            while (status := await check(quota.address, early.secret)) == 503:
                pass
        assert status == 401
        await tell(revoked(key, account))
        told = time.monotonic()
        async with asyncio.timeout(20):
            while await check(quota.address, key.secret) != 401:
                pass
        assert time.monotonic() - told < keys.FRESH_S / 2  # it did not wait for memory to grow old
        async with world.tables(database) as engine:
            await ended(key, engine)
    with world.process(tmp_path, database) as quota:  # neither events nor billing: the table knows
        assert await check(quota.address, key.secret) == 401
    await stream.close()


async def test_a_keys_end_only_comes_nearer(database: str) -> None:
    key, now = new_key("sk_live_"), datetime.now(UTC)
    hours = [KeyOwner("acct_a", "key_a", "live", now + timedelta(hours=n)) for n in range(3)]
    async with world.tables(database) as engine, world.unit_of_work(engine) as uow:
        for told, kept in ((2, 2), (1, 1), (2, 1), (0, 0), (1, 0)):
            await uow.keys.add({key.hash: hours[told]})
            assert await uow.keys.find([key.hash]) == {key.hash: hours[kept]}
        await uow.keys.add({key.hash: KeyOwner("acct_a", "key_a", "live")})
        assert await uow.keys.find([key.hash]) == {key.hash: hours[0]}


async def test_a_key_that_billing_told_of_stays_known_after_a_restart(tmp_path: Path, database: str) -> None:
    billing = envoy_world.Billing()
    secret = billing.open_account("acct_a")
    with envoy_world.billing_server(billing) as address, world.process(tmp_path, database, billing=address) as quota:
        assert await check(quota.address, secret) == 200
        assert await check(quota.address, new_key("sk_live_").secret) == 401
    with world.process(tmp_path, database) as quota:  # and billing is away
        assert await check(quota.address, secret) == 200
    assert billing.asked.count(secret) == 1


async def test_the_table_holds_hashes_and_never_a_key(database: str) -> None:
    key = new_key("sk_live_")
    async with world.tables(database) as engine:
        async with world.unit_of_work(engine) as uow:
            await uow.keys.add({key.hash: KeyOwner("acct_a", "key_a", "live")})
            await uow.keys.add({key.hash: KeyOwner("acct_b", "key_b", "live")})  # a key's owner never changes
            assert await uow.keys.find([key.hash, b"\0" * 32]) == {key.hash: KeyOwner("acct_a", "key_a", "live")}
            await uow.commit()
        async with engine.connect() as connection:
            row = (await connection.execute(text("SELECT api_key::text FROM api_key"))).scalar_one()
    assert key.secret not in row
