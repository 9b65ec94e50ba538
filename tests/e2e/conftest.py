"""One running system for all stories. After each module its databases must not contradict each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Browser

from local.blocking import run_apart
from tests.e2e import browser as chromium
from tests.e2e.world import World
from tests.infra.stack import Stack
from tests.invariants import healed


@pytest.fixture(scope="module")
def system(stack: Stack) -> Iterator[Stack]:
    """The session's system, checked once the module's stories are over."""
    yield stack
    found = run_apart(healed(stack))
    assert not found, "\n".join(found)


@pytest.fixture
async def world(system: Stack) -> AsyncIterator[World]:
    found = World(system)
    yield found
    await found.knobs(reset=True)
    await found.close()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium.running() as running:
        yield running
