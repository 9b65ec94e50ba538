"""The movable clock of local mode: months in seconds, and what comes of one instant happens before the next."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import datetime

import httpx
import pytest

from tests.e2e.world import World

_DAY = 86_400


def local(world: World, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`tollway local …` as a person runs it beside this installation."""
    return subprocess.run(
        [sys.executable, "-m", "tollway.cli.main", "local", *arguments],
        env={**os.environ, "TOLLWAY_CLOCK_PORT": world.env["TOLLWAY_CLOCK_PORT"], "NO_COLOR": "1", **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(autouse=True)
async def nobody_else_renews(world: World) -> None:
    for status in ("active", "past_due"):
        while found := (await world.stripe("GET", "subscriptions", status=status, limit=100))["data"]:
            for subscription in found:
                await world.stripe("DELETE", f"subscriptions/{subscription['id']}")
    await world.drained()


async def test_35_days_bring_the_renewal_its_receipt_and_the_next_periods_end(world: World) -> None:
    ada = await world.subscriber()
    before = await ada.billing()
    began = await world.now()
    done = await asyncio.to_thread(local, world, "advance", "35d")
    assert done.returncode == 0, done.stderr
    assert await world.now() - began in range(35 * _DAY, 35 * _DAY + 60)
    # Nothing is waited for here: it had all arrived when the command came back.
    after = await ada.billing()
    assert (after["plan"], after["status"]) == ("pro", "active")
    assert after["current_period_end"] > before["current_period_end"]
    assert len(await world.mails(ada.email, "receipt")) == 2
    assert (await ada.get("/v1/usage"))["tier"] == "pro"
    progress = done.stderr.splitlines()
    assert [line.split("  ")[0] for line in progress] == sorted(line.split("  ")[0] for line in progress)
    told = {event.strip() for line in progress for event in line.partition("  ")[2].split(",")}
    assert {"invoice.created", "invoice.paid", "customer.subscription.updated"} <= told
    assert done.stdout.startswith("It is 2")


async def test_each_step_is_told_in_json_to_programs_and_the_status_says_what_is_due(world: World) -> None:
    ada = await world.subscriber()
    end = datetime.fromisoformat((await ada.billing())["current_period_end"])
    told = json.loads((await asyncio.to_thread(local, world, "status", "--json")).stdout)
    assert told["waiting"] == {}
    due = datetime.fromisoformat(told["next_due"])
    assert due <= end
    moved = json.loads((await asyncio.to_thread(local, world, "advance", "2h", "--json")).stdout)
    assert datetime.fromisoformat(moved["now"]).timestamp() == pytest.approx(await world.now(), abs=30)
    assert moved["offset_seconds"] - told["offset_seconds"] in range(7200 - 60, 7200 + 1)
    text = (await asyncio.to_thread(local, world, "status")).stdout
    assert "Waiting:  nothing" in text


async def test_two_who_move_it_at_once_do_not_mix_and_the_second_is_told(world: World) -> None:
    began = await world.now()
    port = world.env["TOLLWAY_CLOCK_PORT"]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as clock:
        both = await asyncio.gather(*(clock.post("/advance", json={"seconds": 3600}) for _ in range(2)))
    last = [json.loads(answer.text.splitlines()[-1]) for answer in both]
    moved = [each for each in last if each.get("arrived")]
    assert {each.get("error") for each in last if each not in moved} <= {"the clock is being moved already"}
    assert moved
    assert await world.now() - began in range(3600 * len(moved), 3600 * len(moved) + 60)


@pytest.mark.parametrize("amount", ["-1d", "1y", "d", "1.5d", "٣d", "", "99999d"])
async def test_only_whole_units_of_time_forward_are_taken(world: World, amount: str) -> None:
    before = await world.now()
    refused = await asyncio.to_thread(local, world, "advance", "--", amount)
    assert refused.returncode in {2, 4}
    assert refused.stdout == ""
    assert await world.now() - before < 60


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example", "Content-Type": "application/json"}, 403),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
async def test_a_web_page_cannot_move_the_clock(world: World, headers: dict[str, str], status: int) -> None:
    port = world.env["TOLLWAY_CLOCK_PORT"]
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}/advance"
        answer = await client.post(url, content=b'{"seconds": 60}', headers=headers)
    assert answer.status_code == status


async def test_where_no_local_mode_runs_the_command_says_so(world: World) -> None:
    refused = await asyncio.to_thread(local, world, "advance", "1d", TOLLWAY_CLOCK_PORT="9")
    assert refused.returncode == 5
    assert "make run" in refused.stderr
