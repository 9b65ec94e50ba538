"""Customers sign up, use and pay while parts are killed with -9: afterwards no invariant is violated.

TOLLWAY_FAULT_CUSTOMERS (50) and TOLLWAY_FAULT_ROUNDS (12 blows) are the size; TOLLWAY_FAULT_SEED repeats a run's
choices (it is printed). Of a receipt whose sender died between the mail server's 250 and the record, notify keeps
`unknown`: one mail or none, never two.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import asyncpg
import psutil
import pytest

from tests.e2e.load import Client, live
from tests.evidence import Told
from tests.infra.stack import Stack
from tests.invariants import healed

CUSTOMERS = int(os.environ.get("TOLLWAY_FAULT_CUSTOMERS") or 50)
BLOWS = int(os.environ.get("TOLLWAY_FAULT_ROUNDS") or 12)
AT_ONCE = 8
VICTIMS = ("billing", "quota", "notify", "gateway", "nats", "postgres")
LIMITS = {"free": 100_000, "pro": 1_000_000}
HEALING_S = 120.0

# Where each service notes what a process of it has claimed.
_CLAIMS = {"billing": ("outbox", "billing_sync"), "quota": ("outbox",), "notify": ("messages",)}

# Not on the way of a sign-up, a payment and a use; each has a test of its own.
_ELSEWHERE = {"migrate.applied", "inbox.quota.buried", "inbox.notify.buried"}
_ELSEWHERE |= {f"billing.refund.{place}" for place in ("requested", "canceled", "counted", "made")}  # test_refund
_ELSEWHERE |= {"billing.metering.begun", "billing.metering.sent"}  # test_overage
# What operators do, and signing in: their own tests repeat it, and none of it is on this way.
_ELSEWHERE |= {f"billing.{place}.before_commit" for place in ("contact", "device_login", "erase", "sign_in")}
_ELSEWHERE |= {"billing.customer.pushed", "billing.erase.committed", "billing.import.committed"}


def _failpoints() -> list[str]:
    """Every failpoint that the services name."""
    root = Path(__file__).parents[2]
    found = set()
    for path in root.glob("services/**/*.py"):
        for name in re.findall(r'failpoint\(f?"([^"]+)"\)', path.read_text()):
            if "{self._durable}" in name:
                found |= {name.replace("{self._durable}", durable) for durable in ("quota", "notify")}
            else:
                found.add(name)
    return sorted(found - _ELSEWHERE)


async def _everywhere_right(client: Client) -> list[str]:
    """What billing and quota answer through the gateway, for each account."""
    wrong = []
    for account_id, tier in client.told.tiers.items():
        plan, limit = await asyncio.gather(
            client.plan(client.told.keys[account_id]), client.limit(client.told.keys[account_id])
        )
        if (plan, limit) != (tier, LIMITS[tier]):
            wrong.append(f"account {account_id} is {tier}: billing answers {plan}, quota a limit of {limit}")
    return wrong


class Blows:
    """Counts the blows, so that customers can come evenly between them."""

    def __init__(self) -> None:
        self.count = 0
        self._fell = asyncio.Condition()

    async def fall(self) -> None:
        async with self._fell:
            self.count += 1
            self._fell.notify_all()

    async def wait_for(self, count: int) -> None:
        async with self._fell:
            await self._fell.wait_for(lambda: self.count >= count)


async def _hurt(stack: Stack, chance: random.Random, blows: Blows, killed: Counter[str]) -> None:
    """Each blow kills parts or arms failpoints, one to three at once, a random while after the last ones came back."""
    failpoints = _failpoints()
    while blows.count < BLOWS:
        for _ in range(chance.choice((1, 1, 2, 3))):
            if chance.random() < 0.4:
                name = chance.choice(failpoints)
                stack.arm(name, chance.randint(0, 3))
                killed[f"armed {name}"] += 1
                continue
            part = chance.choice(VICTIMS)
            pid = stack.run_facts()["parts"][part]["pid"]  # none while it is being started again
            try:
                os.kill(pid or 0x7FFFFFFF, signal.SIGKILL)
            except ProcessLookupError:
                continue  # a failpoint was faster
            killed[part] += 1
        await blows.fall()
        await asyncio.sleep(0.1)  # the supervisor sees it within that
        await asyncio.to_thread(stack.wait_ready)
        await asyncio.sleep(chance.uniform(0.0, 2.0))  # at a random moment of the load


async def test_customers_lose_nothing_while_every_part_is_killed_at_random(own_stack: Stack) -> None:
    seed = int(os.environ.get("TOLLWAY_FAULT_SEED") or time.time_ns() % 10**9)
    print(f"TOLLWAY_FAULT_SEED={seed}")
    chance = random.Random(seed)
    told, killed, blows = Told(), Counter[str](), Blows()
    client = Client(own_stack, told, random.Random(seed + 1))
    slots = asyncio.Semaphore(AT_ONCE)

    async def customer(number: int) -> None:
        await blows.wait_for(number * BLOWS // CUSTOMERS)
        async with slots:
            await live(client, f"fault-{number}", pays=number % 5 != 0, declined=number % 7 == 0)

    began = time.monotonic()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_hurt(own_stack, chance, blows, killed))
            for number in range(CUSTOMERS):
                tasks.create_task(customer(number))
    finally:
        for armed in own_stack.failpoints.iterdir():
            armed.unlink(missing_ok=True)
    loaded = time.monotonic() - began
    await asyncio.to_thread(own_stack.wait_ready)
    found = await healed(own_stack, told, within=HEALING_S)
    healing = time.monotonic() - began - loaded
    print(
        f"{CUSTOMERS} customers in {loaded:.0f} s, {client.retries} retries, healed in {healing:.0f} s: {dict(killed)}"
    )
    assert found == []
    assert await _everywhere_right(client) == []
    await client.close()
    assert len(told.keys) == CUSTOMERS
    assert sum(killed[part] for part in VICTIMS) >= BLOWS // 2, "too little was killed to prove anything"


async def _free_claims_of_the_dead(stack: Stack, pids: dict[str, int]) -> None:
    """Waits until one of the services is dead. What it had claimed is free at once: tested is what follows, not how
    long a claim lasts."""
    dead: list[str] = []
    while not dead:
        await asyncio.sleep(0.01)  # only the process table tells
        dead = [service for service, pid in pids.items() if not psutil.pid_exists(pid)]
    for service in dead:
        connection = await asyncpg.connect(stack.dsn(service).replace("+asyncpg", ""))
        try:
            for table in _CLAIMS[service]:
                await connection.execute(f"UPDATE {table} SET claim_until = now() WHERE claim_until > now()")
        finally:
            await connection.close()


@pytest.mark.parametrize("name", _failpoints())
async def test_a_process_that_dies_there_loses_nothing(own_stack: Stack, name: str) -> None:
    told = Told()
    client = Client(own_stack, told, random.Random(name))
    await asyncio.to_thread(own_stack.wait_ready)
    pids = {service: own_stack.pid(service) for service in _CLAIMS}
    own_stack.arm(name)
    async with asyncio.TaskGroup() as tasks:
        freed = tasks.create_task(_free_claims_of_the_dead(own_stack, pids))
        await live(client, name.replace(".", "-"), uses=1)
        async with asyncio.timeout(20):  # else nothing passed there
            await asyncio.wait([freed])
    assert not (own_stack.failpoints / name).exists(), "it died elsewhere"
    assert await healed(own_stack, told, within=HEALING_S) == []
    assert await _everywhere_right(client) == []
    await client.close()
