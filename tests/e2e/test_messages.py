"""Messages a month: the limit is exact, also for many at once; a retry with its key counts once."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.e2e.world import PROBLEM, World


async def test_message_100_001_on_free_is_refused_with_402_and_what_to_do_about_it(world: World) -> None:
    customer = await world.sign_up()
    assert (await customer.send(99_999)).status_code == 200
    last = await customer.send()
    assert (last.status_code, last.json()["used"], last.json()["remaining"]) == (200, 100_000, 0)
    refused = await customer.send()
    assert (refused.status_code, refused.headers["content-type"]) == (402, PROBLEM)
    document = refused.json()
    expected = {
        "status": 402,
        "code": "message_quota_exceeded",
        "reason": "message_quota_exceeded",
        "meter": "messages",
        "used": 100_000,
        "limit": 100_000,
        "remaining": 0,
        "tier": "free",
        "checkoutUrl": f"{world.stack.gateway_url}/dash/{customer.account['slug']}/billing",
        "resets_at": (await customer.messages())["resets_at"],
        "violated-policies": ["messages_per_month"],
    }
    assert {name: document[name] for name in expected} == expected
    assert int(refused.headers["retry-after"]) > 0
    assert (await customer.messages())["used"] == 100_000, "a refusal counts nothing"


async def test_an_amount_that_does_not_fit_is_refused_whole_and_a_smaller_one_still_fits(world: World) -> None:
    customer = await world.sign_up()
    assert (await customer.send(99_995)).status_code == 200
    assert (await customer.send(6)).status_code == 402
    assert (await customer.send(5)).json()["used"] == 100_000


async def test_of_200_at_once_with_10_left_exactly_10_pass(world: World) -> None:
    customer = await world.sign_up()
    assert (await customer.send(99_990)).status_code == 200
    answers = await asyncio.gather(*(customer.send() for _ in range(200)))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 402: 190}
    told = sorted(answer.json()["used"] for answer in answers if answer.status_code == 200)
    assert told == list(range(99_991, 100_001)), "no two are told the same number"
    assert (await customer.messages())["used"] == 100_000


async def test_upgrading_lifts_the_limit_for_who_was_refused_a_moment_ago(world: World) -> None:
    customer = await world.sign_up()
    assert (await customer.send(100_000)).status_code == 200
    assert (await customer.send(1, key="the-same")).status_code == 402
    await customer.subscribe()
    again = await customer.send(1, key="the-same")
    assert (again.status_code, again.json()["used"], again.json()["replayed"]) == (200, 100_001, False)


async def test_message_1_000_001_on_pro_is_refused(world: World) -> None:
    customer = await world.subscriber()
    assert (await customer.send(1_000_000)).json()["remaining"] == 0
    refused = await customer.send()
    assert (refused.status_code, refused.json()["limit"], refused.json()["tier"]) == (402, 1_000_000, "pro")


async def test_an_idempotency_key_counts_once_however_often_and_at_once_it_is_sent(world: World) -> None:
    customer = await world.sign_up()
    answers = await asyncio.gather(*(customer.send(5, key="order-1") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json()["replayed"] for answer in answers].count(False) == 1
    assert {answer.json()["used"] for answer in answers} == {5}
    late = await customer.send(5, key="order-1")
    assert (late.json()["used"], late.json()["replayed"]) == (5, True)
    assert (await customer.messages())["used"] == 5


async def test_an_idempotency_key_belongs_to_one_request_and_one_account(world: World) -> None:
    customer, neighbour = await world.sign_up(), await world.sign_up("Neighbour")
    assert (await customer.send(5, key="order-1")).status_code == 200
    reused = await customer.send(6, key="order-1")
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
    assert reused.json()["field"] == "Idempotency-Key"
    assert (await neighbour.send(6, key="order-1")).json()["used"] == 6
    assert (await customer.messages())["used"] == 5


async def test_without_a_key_each_request_counts(world: World) -> None:
    customer = await world.sign_up()
    await asyncio.gather(*(customer.send() for _ in range(20)))
    assert (await customer.messages())["used"] == 20


async def test_rate_limit_headers_say_what_is_left_of_the_month(world: World) -> None:
    customer = await world.sign_up()
    answer = await customer.send(40)
    assert answer.headers["ratelimit-policy"] == '"messages_per_month";q=100000'
    assert answer.headers["ratelimit"].startswith('"messages_per_month";r=99960;t=')
