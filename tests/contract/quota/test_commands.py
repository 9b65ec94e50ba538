"""Every command, on the plain model and on the lane over PostgreSQL: leases, caps, allowances, reversal."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from services.quota.domain import (
    Acquire,
    AdjustAllowance,
    Command,
    Decision,
    Release,
    Renew,
    Reversal,
    Reverse,
    SetCap,
    Settle,
    Use,
)
from services.quota.errors import GrantReversed, LeaseNotFound
from tests.contract.quota.comparing import timeless
from tests.contract.quota.deciders import KINDS, Decider, deciding, one
from tests.contract.quota.model import ModelDecider
from tests.integration.quota import world
from tollway.billing.v1 import entitlement_pb2

HOUR = timedelta(hours=1)


def guarded(account_id: str, *, quota: int | None = 60, slots: int | None = 5) -> entitlement_pb2.Entitlements:
    """A plan with everything that a command can meet, but rates."""
    message = world.entitlements(account_id, limit=quota)
    [meter] = message.meters
    meter.overage_unit_price, meter.currency, meter.included_units = "0.5", "usd", 10
    message.meters.add(name="calls")
    message.limits[0].meters.append("calls")
    message.limits[0].warn_percent.extend([50, 100])
    message.limits.add(
        name="cap",
        meters=["messages"],
        kind=entitlement_pb2.LIMIT_KIND_CAP,
        period=entitlement_pb2.PERIOD_MONTH,
        warn_percent=[80],
    )
    message.limits.add(
        name="slots", meters=["messages", "calls"], kind=entitlement_pb2.LIMIT_KIND_CONCURRENCY, limit=slots
    )
    message.allowances["models"] = 5
    return message


ACCOUNTS = [guarded("acct_a"), guarded("acct_b", quota=25, slots=2), guarded("acct_c", quota=None, slots=None)]


@pytest.fixture(params=KINDS)
async def decider(request: pytest.FixtureRequest) -> AsyncIterator[Decider]:
    async with deciding(request, *ACCOUNTS) as found:
        yield found


def acquire(name: str, amount: int = 0, reserve: int = 0, *, account_id: str = "acct_a", key: str = "") -> Acquire:
    return Acquire(account_id, "messages", amount, reserve, name, HOUR, key)


async def test_exactly_as_many_leases_as_there_are_slots_when_all_come_at_once(decider: Decider) -> None:
    outcomes = await asyncio.gather(*(one(decider, acquire(f"lease_{n}")) for n in range(40)))
    granted = [outcome.lease for outcome in outcomes if isinstance(outcome, Decision) and outcome.lease is not None]
    assert len(granted) == 5
    released = await asyncio.gather(*(one(decider, Release("acct_a", granted[0].id)) for _ in range(8)))
    assert sum(isinstance(outcome, LeaseNotFound) for outcome in released) == 7
    again = await one(decider, acquire("another"))
    assert isinstance(again, Decision)
    assert again.allowed


async def test_reserve_and_use_never_exceed_the_quota_when_all_come_at_once(decider: Decider) -> None:
    asked: list[Command] = [acquire(f"lease_{n}", 1, 9, account_id="acct_b") for n in range(10)]
    asked += [Use("acct_b", "messages", 3) for _ in range(10)]
    random.Random(3).shuffle(asked)
    outcomes = await asyncio.gather(*(one(decider, command) for command in asked))
    held = sum(
        outcome.lease.reserved for outcome in outcomes if isinstance(outcome, Decision) and outcome.lease is not None
    )
    assert await decider.total("acct_b") + held <= 25


async def test_a_grant_is_taken_back_once_when_all_ask_at_once(decider: Decider) -> None:
    await one(decider, Use("acct_a", "messages", 7, "k"))
    outcomes = await asyncio.gather(*(one(decider, Reverse("acct_a", "k")) for _ in range(10)))
    assert sum(isinstance(outcome, Reversal) and not outcome.replayed for outcome in outcomes) == 1
    assert await decider.total("acct_a") == 0
    assert isinstance(await one(decider, Use("acct_a", "messages", 7, "k")), GrantReversed)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_it_agrees_with_the_model_over_a_random_story_of_every_command(decider: Decider, seed: int) -> None:
    story = random.Random(seed)
    model = ModelDecider(*ACCOUNTS)
    for turn in range(40):
        batch = [_some(story, turn * 100 + index) for index in range(story.randint(1, 15))]
        expected = await model.decide([replace(command) for command in batch], None)
        got = await decider.decide(batch, 10.0)
        assert [timeless(outcome) for outcome in got] == [timeless(outcome) for outcome in expected]
    for message in ACCOUNTS:
        assert await decider.total(message.account_id) == await model.total(message.account_id)


def _some(story: random.Random, number: int) -> Command:
    account_id = story.choice(["acct_a", "acct_a", "acct_b", "acct_c", "acct_x"])
    meter, key = story.choice(["messages", "messages", "calls"]), story.choice(["", *(f"k{n}" for n in range(10))])
    lease_id = f"lease_{max(0, number - story.randint(1, 130))}"
    change = story.choice(["set", "add", "remove"])
    limit = story.choice([None, 0, 5, 12, 30])
    return story.choice(
        [
            Use(account_id, meter, story.randint(1, 6), key, story.random() < 0.1),
            Acquire(account_id, meter, story.randint(0, 3), story.randint(0, 6), f"lease_{number}", HOUR, key),
            Acquire(account_id, meter, story.randint(0, 3), story.randint(0, 6), f"lease_{number}", HOUR, key),
            Renew(account_id, lease_id, 2 * HOUR),
            Settle(account_id, lease_id, story.randint(0, 4)),
            Release(account_id, lease_id),
            Reverse(account_id, f"k{story.randint(0, 9)}"),
            SetCap(account_id, "messages", limit, auto_stop=story.random() < 0.7),
            SetCap(account_id, "messages", None, story.choice(["1", "2.5", "0"]), auto_stop=story.random() < 0.7),
            AdjustAllowance(account_id, story.choice(["models", "seats"]), change, story.randint(1, 3), key),  # type: ignore[arg-type]
        ]
    )
