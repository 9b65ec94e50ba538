"""Asking billing: in bulk, once for all who wait, and absence is believed for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from services.quota.directory import BillingDirectory
from services.quota.errors import BillingUnavailable
from services.quota.events import Snapshot


def snapshot(account_id: str) -> Snapshot:
    return Snapshot(account_id, 1, "active", None, "", None, b"", b"")


class Billing:
    def __init__(self, *there: str) -> None:
        self.there = set(there)
        self.asked: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.called = asyncio.Event()
        self.down = False

    async def get(self, account_ids: Sequence[str]) -> list[Snapshot]:
        self.asked.append(sorted(account_ids))
        self.called.set()
        await self.open.wait()
        if "unreadable" in account_ids:
            raise ValueError("a limit of a kind that this release does not know")
        if self.down:
            raise ConnectionError("away")
        return [snapshot(account_id) for account_id in account_ids if account_id in self.there]

    async def changed_since(self, token: str) -> tuple[list[Snapshot], str, bool]:
        raise NotImplementedError


@asynccontextmanager
async def directory_of(billing: Billing, stored: list[str]) -> AsyncIterator[BillingDirectory]:
    async def store(snapshots: Sequence[Snapshot]) -> None:
        stored.extend(each.account_id for each in snapshots)

    directory = BillingDirectory(billing, store)
    running = asyncio.create_task(directory.run())
    try:
        yield directory
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_many_who_ask_at_once_become_one_read_per_round() -> None:
    billing, stored = Billing("a", "b", "c"), list[str]()
    async with directory_of(billing, stored) as directory:
        billing.open.clear()
        first = [asyncio.create_task(directory.learn(["a"])) for _ in range(20)]
        await billing.called.wait()
        rest = [asyncio.create_task(directory.learn(["a", name])) for name in ("b", "c", "b", "x")]
        await asyncio.sleep(0)
        billing.open.set()
        assert await asyncio.gather(*first) == [{"a"}] * 20
        assert await asyncio.gather(*rest) == [{"a", "b"}, {"a", "c"}, {"a", "b"}, {"a"}]
    assert billing.asked == [["a"], ["b", "c", "x"]]
    assert sorted(stored) == ["a", "b", "c"]


async def test_an_absent_account_is_not_asked_for_again_at_once() -> None:
    billing = Billing()
    async with directory_of(billing, []) as directory:
        assert await directory.learn(["x"]) == set()
        assert await directory.learn(["x"]) == set()
    assert billing.asked == [["x"]]


async def test_billing_away_is_told_and_not_remembered() -> None:
    billing = Billing("a")
    async with directory_of(billing, []) as directory:
        billing.down = True
        with pytest.raises(BillingUnavailable):
            await directory.learn(["a"])
        billing.down = False
        assert await directory.learn(["a"]) == {"a"}


async def test_one_caller_who_leaves_does_not_fail_the_others() -> None:
    billing = Billing("a")
    async with directory_of(billing, []) as directory:
        billing.open.clear()
        leaving, staying = (asyncio.create_task(directory.learn(["a"])) for _ in range(2))
        await billing.called.wait()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        billing.open.set()
        assert await staying == {"a"}


async def test_an_account_that_cannot_be_read_does_not_stop_the_others() -> None:
    billing = Billing("a", "b")
    async with directory_of(billing, []) as directory:
        billing.open.clear()
        first = asyncio.create_task(directory.learn(["a"]))
        await billing.called.wait()
        strange = asyncio.create_task(directory.learn(["unreadable"]))
        other = asyncio.create_task(directory.learn(["b"]))
        await asyncio.sleep(0)
        billing.open.set()
        assert await first == {"a"}
        assert await other == {"b"}
        with pytest.raises(BillingUnavailable):
            await strange
