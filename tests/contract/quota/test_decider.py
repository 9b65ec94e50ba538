"""One suite for whatever decides: the plain model, and the lane on PostgreSQL."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from services.quota.domain import Decision, Unknown, Use
from services.quota.errors import KeyReused, UnknownMeter
from tests.contract.quota.comparing import plain
from tests.contract.quota.deciders import KINDS, Decider, deciding, one
from tests.contract.quota.model import ModelDecider
from tests.integration.quota import world

LIMITS: dict[str, int | None] = {"acct_a": 10, "acct_b": 0, "acct_c": None, "acct_d": 100, "acct_r": 30}
RATES = {"acct_r": (12, 5)}  # in any 60 s: of the account, of each key
ACCOUNTS = [
    world.entitlements(name, limit=limit, **dict(zip(("burst", "per_key"), RATES.get(name, ()), strict=False)))
    for name, limit in LIMITS.items()
]


@pytest.fixture(params=KINDS)
async def decider(request: pytest.FixtureRequest) -> AsyncIterator[Decider]:
    async with deciding(request, *ACCOUNTS) as found:
        yield found


async def decided(decider: Decider, use: Use) -> Decision:
    outcome = await one(decider, use)
    assert isinstance(outcome, Decision)
    return outcome


async def test_exactly_the_limit_passes_when_all_come_at_once(decider: Decider) -> None:
    outcomes = await asyncio.gather(*(decided(decider, Use("acct_a", "messages", 1, f"k{n}")) for n in range(200)))
    assert sum(outcome.allowed for outcome in outcomes) == 10
    assert await decider.total("acct_a") == 10


async def test_a_repeat_gets_the_first_answer_and_counts_nothing(decider: Decider) -> None:
    use = Use("acct_a", "messages", 3, "key")
    first, second = await decided(decider, use), await decided(decider, use)
    assert not first.replayed
    assert second.replayed
    assert second.limits == first.limits
    assert await decider.total("acct_a") == 3


async def test_the_same_key_at_once_counts_once(decider: Decider) -> None:
    use = Use("acct_a", "messages", 1, "same")
    outcomes = await asyncio.gather(*(decided(decider, replace(use)) for _ in range(50)))
    assert sum(not outcome.replayed for outcome in outcomes) == 1
    assert await decider.total("acct_a") == 1


@pytest.mark.parametrize("other", [{"amount": 2}, {"meter": "other"}])
async def test_a_key_with_another_body_is_a_conflict(decider: Decider, other: dict[str, Any]) -> None:
    use = Use("acct_a", "messages", 1, "key")
    await decided(decider, use)
    assert isinstance(await one(decider, replace(use, **other)), KeyReused)
    assert await decider.total("acct_a") == 1


async def test_a_refused_key_is_not_remembered(decider: Decider) -> None:
    assert not (await decided(decider, Use("acct_a", "messages", 11, "key"))).allowed
    granted = await decided(decider, Use("acct_a", "messages", 10, "key"))
    assert granted.allowed
    assert not granted.replayed


async def test_a_dry_run_counts_and_remembers_nothing(decider: Decider) -> None:
    assert (await decided(decider, Use("acct_a", "messages", 10, "key", dry_run=True))).limits[0].used == 10
    assert (await decided(decider, Use("acct_a", "messages", 10, "key"))).replayed is False


async def test_keys_belong_to_their_account(decider: Decider) -> None:
    await decided(decider, Use("acct_a", "messages", 1, "key"))
    assert not (await decided(decider, Use("acct_d", "messages", 1, "key"))).replayed


async def test_each_use_of_a_call_stands_for_itself(decider: Decider) -> None:
    outcomes = await decider.decide(
        [
            Use("acct_a", "messages", 1),
            Use("acct_x", "messages", 1),
            Use("acct_a", "nonsense", 1),
            Use("acct_b", "messages", 1),
            Use("acct_c", "messages", 2**62),
        ],
        10.0,
    )
    assert [type(outcome) for outcome in outcomes] == [Decision, Unknown, UnknownMeter, Decision, Decision]
    assert [isinstance(outcome, Decision) and outcome.allowed for outcome in outcomes] == [
        True,
        False,
        False,
        False,
        True,
    ]


async def test_a_refusal_says_what_the_catalog_says(decider: Decider) -> None:
    refused = (await decided(decider, Use("acct_b", "messages", 1))).refused
    assert refused is not None
    assert (refused.limit, refused.refusal.reason, refused.refusal.http_status, refused.retry_after) == (
        "messages",
        "message_quota_exceeded",
        402,
        None,
    )


async def test_exactly_the_rate_passes_when_all_come_at_once_and_each_key_has_its_own(decider: Decider) -> None:
    calls = [Use("acct_r", "messages", 1, key_id=f"key_{n % 2}") for n in range(100)]
    outcomes = await asyncio.gather(*(decided(decider, use) for use in calls))
    for mine in (outcomes[::2], outcomes[1::2]):
        assert sum(outcome.allowed for outcome in mine) == 5
    refused = next(outcome.refused for outcome in outcomes if outcome.refused)
    assert (refused.limit, refused.refusal.reason, refused.refusal.http_status) == ("per_key", "too_fast", 429)
    assert await decider.total("acct_r") == 10  # a rate's refusal counts nothing against the month
    third = [await decided(decider, Use("acct_r", "messages", 1, key_id="key_3")) for _ in range(3)]
    assert [outcome.refused and outcome.refused.limit for outcome in third] == [None, None, "burst"]


async def test_it_agrees_with_the_model_over_a_random_story(decider: Decider) -> None:
    story = random.Random(7)
    model = ModelDecider(*ACCOUNTS)
    for _ in range(30):
        uses = [
            Use(
                story.choice(["acct_a", "acct_b", "acct_c", "acct_d", "acct_x", "acct_r", "acct_r"]),
                story.choice(["messages", "messages", "messages", "nonsense"]),
                story.randint(1, 6),
                story.choice(["", "", *(f"k{n}" for n in range(12))]),
                story.random() < 0.2,
                story.choice(["", "key_1", "key_2"]),
            )
            for _ in range(story.randint(1, 20))
        ]
        expected, got = await model.decide(uses, None), await decider.decide(uses, 10.0)
        assert [plain(outcome) for outcome in got] == [plain(outcome) for outcome in expected]
    for account_id in LIMITS:
        assert await decider.total(account_id) == await model.total(account_id)
