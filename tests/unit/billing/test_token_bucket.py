"""Claims about the token bucket for calls to Stripe (DESIGN §4)."""

from __future__ import annotations

import asyncio

from services.billing.token_bucket import BACKGROUND, PEOPLE, TokenBucket


async def test_as_many_as_the_rate_pass_at_once_and_the_next_waits_its_turn() -> None:
    bucket = TokenBucket(rate=5)
    for _ in range(5):
        await asyncio.wait_for(bucket.take(PEOPLE), 0.1)
    began = asyncio.get_running_loop().time()
    await bucket.take(PEOPLE)
    assert 0.1 < asyncio.get_running_loop().time() - began < 1.0


async def test_people_go_before_the_background_that_came_first() -> None:
    bucket = TokenBucket(rate=20)
    for _ in range(20):
        await bucket.take(PEOPLE)
    order: list[str] = []

    async def call(name: str, priority: int) -> None:
        await bucket.take(priority)
        order.append(name)

    background = [asyncio.create_task(call(f"background {n}", BACKGROUND)) for n in range(3)]
    await asyncio.sleep(0)  # let them queue
    await asyncio.gather(call("checkout", PEOPLE), *background)
    assert order == ["checkout", "background 0", "background 1", "background 2"]


async def test_a_caller_that_gave_up_costs_nobody_a_turn() -> None:
    bucket = TokenBucket(rate=10)
    for _ in range(10):
        await bucket.take(PEOPLE)
    gone = asyncio.create_task(bucket.take(PEOPLE))
    await asyncio.sleep(0)
    gone.cancel()
    began = asyncio.get_running_loop().time()
    await bucket.take(PEOPLE)
    assert asyncio.get_running_loop().time() - began < 0.5
