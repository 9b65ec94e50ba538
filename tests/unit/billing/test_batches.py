"""Claims about work that is done together."""

from __future__ import annotations

import asyncio

import pytest

from services.billing.batches import Batches


class Work:
    def __init__(self) -> None:
        self.done: list[list[int]] = []
        self.began, self.may_go_on = asyncio.Event(), asyncio.Event()
        self.may_go_on.set()

    async def __call__(self, items: list[int]) -> list[int]:
        self.done.append(items)
        self.began.set()
        await self.may_go_on.wait()
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return [item * 10 for item in items]


async def test_what_comes_while_a_batch_is_under_way_is_the_next_batch() -> None:
    work = Work()
    work.may_go_on.clear()
    batches = Batches(work)
    first = asyncio.create_task(batches.do(1))
    await work.began.wait()
    others = [asyncio.create_task(batches.do(number)) for number in (2, 3, 4)]
    await asyncio.sleep(0)
    work.may_go_on.set()
    assert await asyncio.gather(first, *others) == [10, 20, 30, 40]
    assert work.done == [[1], [2, 3, 4]]
    assert await batches.do(5) == 50, "and so on, after a pause"


async def test_a_batch_has_an_end() -> None:
    work = Work()
    batches = Batches(work, most=2)
    assert await asyncio.gather(*(batches.do(number) for number in range(5))) == [0, 10, 20, 30, 40]
    assert work.done == [[0, 1], [2, 3], [4]]


async def test_one_that_cannot_be_done_fails_alone() -> None:
    work = Work()
    batches = Batches(work)
    results = await asyncio.gather(*(batches.do(number) for number in (1, -2, 3)), return_exceptions=True)
    assert (results[0], results[2]) == (10, 30)
    assert isinstance(results[1], ValueError)
    assert work.done == [[1, -2, 3], [1], [-2], [3]]


async def test_who_leaves_takes_nothing_from_the_others() -> None:
    work = Work()
    work.may_go_on.clear()
    batches = Batches(work)
    tasks = [asyncio.create_task(batches.do(number)) for number in (1, 2, 3)]
    await work.began.wait()
    tasks[1].cancel()
    work.may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    assert await asyncio.gather(tasks[0], tasks[2]) == [10, 30]
