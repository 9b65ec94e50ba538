"""Whose key is it: from memory, from the table, from billing, and what holds when one of them is away."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.kit.base62 import checksum
from services.kit.clock import Clock, WallClock
from services.quota import keys
from services.quota.errors import ApiKeyRefused, BillingUnavailable, StoreUnavailable
from services.quota.keys import KeyRing
from services.quota.ports import KeyOwner
from tollway.billing.v1 import events_pb2


def a_key(name: str) -> str:
    body = f"sk_live_{name:0>20}"
    return body + checksum(body)


def hash_of(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


ADA, BOB = KeyOwner("acct_ada", "key_a", "live"), KeyOwner("acct_bob", "key_b", "live")


class Table:
    def __init__(self, rows: Mapping[bytes, KeyOwner] | None = None) -> None:
        self.rows = dict(rows or {})
        self.reads: list[int] = []
        self.down = False

    async def find(self, hashes: Sequence[bytes]) -> Mapping[bytes, KeyOwner]:
        self.reads.append(len(hashes))
        await asyncio.sleep(0)
        if self.down:
            raise ConnectionError("away")
        return {each: self.rows[each] for each in hashes if each in self.rows}

    async def add(self, owners: Mapping[bytes, KeyOwner]) -> None:
        if self.down:
            raise ConnectionError("away")
        self.rows |= owners


class SilentTable(Table):
    async def find(self, hashes: Sequence[bytes]) -> Mapping[bytes, KeyOwner]:
        await asyncio.Event().wait()
        raise AssertionError


class Billing:
    def __init__(self, owners: Mapping[str, KeyOwner] | None = None) -> None:
        self.owners = dict(owners or {})
        self.asked: list[str] = []
        self.down = False

    async def authenticate(self, api_key: str) -> KeyOwner:
        self.asked.append(api_key)
        await asyncio.sleep(0)
        if self.down:
            raise ConnectionError("away")
        if api_key not in self.owners:
            raise ApiKeyRefused("This API key is not known.")
        return self.owners[api_key]


@asynccontextmanager
async def ring_of(
    table: Table, billing: Billing, *, fresh_s: float = 5.0, clock: Clock | None = None
) -> AsyncIterator[KeyRing]:
    ring = KeyRing(table, billing, clock or WallClock(), fresh_s=fresh_s)
    running = asyncio.create_task(ring.run())
    try:
        yield ring
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_key_in_the_table_needs_neither_billing_nor_a_second_read() -> None:
    table, billing = Table({hash_of(a_key("a")): ADA}), Billing()
    async with ring_of(table, billing) as ring:
        assert [await ring.owner(a_key("a")) for _ in range(3)] == [ADA] * 3
    assert (table.reads, billing.asked) == ([1], [])


async def test_a_key_in_use_is_read_ahead_so_that_nobody_waits_for_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "IN_USE_S", 1.0)
    table = Table({hash_of(a_key("a")): ADA})
    async with ring_of(table, Billing(), fresh_s=0.4) as ring:
        await ring.owner(a_key("a"))
    # From here on nobody serves those who would have to wait.
    ahead = asyncio.create_task(ring.keep_fresh())
    table.rows[hash_of(a_key("a"))] = BOB
    async with asyncio.timeout(20):
        while await ring.owner(a_key("a")) != BOB or len(table.reads) < 5:  # noqa: ASYNC110 - asks again and again
            await asyncio.sleep(0.01)
        reads = 0
        while reads != len(table.reads):
            reads = len(table.reads)
            await asyncio.sleep(1.0)  # as long as keys are in use
    ahead.cancel()


async def test_many_who_wait_share_one_read_and_one_question() -> None:
    table, billing = Table({hash_of(a_key("a")): ADA}), Billing({a_key("b"): BOB})
    async with ring_of(table, billing) as ring:
        told = await asyncio.gather(*(ring.owner(a_key("ab"[n % 2])) for n in range(20)))
    assert told == [ADA, BOB] * 10
    assert (table.reads, billing.asked) == ([2], [a_key("b")])


async def test_what_billing_answers_is_in_the_table_afterwards() -> None:
    table, billing = Table(), Billing({a_key("b"): BOB})
    async with ring_of(table, billing) as ring:
        await ring.owner(a_key("b"))
    assert table.rows == {hash_of(a_key("b")): BOB}


async def test_an_unknown_key_is_asked_of_billing_once_in_a_while() -> None:
    table, billing = Table(), Billing()
    async with ring_of(table, billing, fresh_s=0.05) as ring:
        for _ in range(3):
            with pytest.raises(ApiKeyRefused):
                await ring.owner(a_key("x"))
        assert len(billing.asked) == 1
        billing.owners[a_key("x")] = ADA
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await ring.owner(a_key("x")) == ADA
                    break
                except ApiKeyRefused:
                    await asyncio.sleep(0.01)
        assert len(billing.asked) == 2


@pytest.mark.parametrize("wrong", ["", "sk", a_key("a")[:-1], a_key("a") + "0", "é" * 20, a_key("a").swapcase()])
async def test_a_malformed_key_is_refused_without_a_look(wrong: str) -> None:
    table, billing = Table(), Billing()
    async with ring_of(table, billing) as ring:
        with pytest.raises(ApiKeyRefused) as caught:
            await ring.owner(wrong)
    assert caught.value.error_reason == "API_KEY_MALFORMED"
    assert (table.reads, billing.asked) == ([], [])


async def test_while_the_table_is_away_known_keys_still_open_and_new_ones_do_not() -> None:
    table, billing = Table({hash_of(a_key("a")): ADA}), Billing({a_key("b"): BOB})
    async with ring_of(table, billing, fresh_s=0.0) as ring:
        assert await ring.owner(a_key("a")) == ADA
        table.down = True
        assert await ring.owner(a_key("a")) == ADA
        with pytest.raises(StoreUnavailable):
            await ring.owner(a_key("b"))
        table.down = False
        assert await ring.owner(a_key("b")) == BOB


async def test_a_table_that_is_silent_is_as_good_as_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "READ_S", 0.01)
    async with ring_of(SilentTable(), Billing()) as ring:
        with pytest.raises(StoreUnavailable):
            await ring.owner(a_key("a"))


async def test_billing_being_away_is_unavailable_and_not_a_refusal() -> None:
    table, billing = Table(), Billing({a_key("b"): BOB})
    billing.down = True
    async with ring_of(table, billing) as ring:
        with pytest.raises(BillingUnavailable):
            await ring.owner(a_key("b"))
        billing.down = False
        assert await ring.owner(a_key("b")) == BOB


async def test_a_key_that_billing_no_longer_knows_is_forgotten() -> None:
    table, billing = Table({hash_of(a_key("a")): ADA}), Billing()
    async with ring_of(table, billing, fresh_s=0.0) as ring:
        await ring.owner(a_key("a"))
        table.rows.clear()
        with pytest.raises(ApiKeyRefused):
            await ring.owner(a_key("a"))
        table.down = True
        with pytest.raises(StoreUnavailable):
            await ring.owner(a_key("a"))


async def test_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MOST_KEPT", 3)
    table = Table({hash_of(a_key(str(n))): ADA for n in range(5)})
    async with ring_of(table, Billing()) as ring:
        for n in range(5):
            await ring.owner(a_key(str(n)))
        assert len(ring._known) == 3
        await ring.owner(a_key("4"))
    assert len(table.reads) == 5


class Clock2026:
    def __init__(self) -> None:
        self.at = datetime(2026, 4, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


def revoked(key: str, at: datetime) -> events_pb2.KeyRevoked:
    message = events_pb2.KeyRevoked(account_id="acct_ada", key_id="key_a", kind="live", key_hash=hash_of(key))
    message.revoke_time.FromDatetime(at)
    return message


async def refusal(ring: KeyRing, key: str) -> str:
    with pytest.raises(ApiKeyRefused) as caught:
        await ring.owner(key)
    return caught.value.error_reason


async def test_a_key_that_was_heard_to_end_is_refused_on_the_next_decision_though_memory_and_table_hold_it() -> None:
    clock = Clock2026()
    table = Table({hash_of(a_key("a")): ADA})
    async with ring_of(table, Billing(), clock=clock) as ring:
        assert await ring.owner(a_key("a")) == ADA
        ring.hear(revoked(a_key("a"), clock.at))
        assert await refusal(ring, a_key("a")) == "API_KEY_REVOKED"
    async with ring_of(table, Billing(), clock=clock, fresh_s=0.0) as ring:
        ring.hear(revoked(a_key("a"), clock.at))
        assert await refusal(ring, a_key("a")) == "API_KEY_REVOKED"


async def test_a_rotated_key_works_until_its_end_and_not_at_it() -> None:
    clock = Clock2026()
    end = clock.at + timedelta(hours=24)
    table = Table({hash_of(a_key("a")): replace(ADA, end_time=end)})
    async with ring_of(table, Billing(), clock=clock) as ring:
        assert (await ring.owner(a_key("a"))).key_id == "key_a"
        clock.at = end - timedelta(microseconds=1)
        assert (await ring.owner(a_key("a"))).key_id == "key_a"
        clock.at = end
        assert await refusal(ring, a_key("a")) == "API_KEY_REVOKED"


async def test_of_two_ends_that_were_heard_the_earlier_counts_whichever_came_first() -> None:
    for order in ((1, 5), (5, 1)):
        clock = Clock2026()
        async with ring_of(Table({hash_of(a_key("a")): ADA}), Billing(), clock=clock) as ring:
            for hours in order:
                ring.hear(revoked(a_key("a"), clock.at + timedelta(hours=hours)))
            assert await ring.owner(a_key("a")) == ADA
            clock.at += timedelta(hours=1)
            assert await refusal(ring, a_key("a")) == "API_KEY_REVOKED"


async def test_a_table_that_is_away_does_not_bring_a_revoked_key_back() -> None:
    clock = Clock2026()
    table = Table({hash_of(a_key("a")): ADA})
    async with ring_of(table, Billing(), fresh_s=0.0, clock=clock) as ring:
        await ring.owner(a_key("a"))
        table.down = True
        ring.hear(revoked(a_key("a"), clock.at))
        assert await refusal(ring, a_key("a")) == "API_KEY_REVOKED"
