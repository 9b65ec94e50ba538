"""What operators do from a terminal about one customer, against the running system."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.test_cli_story import Terminal
from tests.e2e.world import World, until


@pytest.fixture
def terminal(world: World, tmp_path: Path) -> Terminal:
    return Terminal(world, tmp_path / "home", TOLLWAY_OPERATOR_TOKEN=world.stack.operator_token)


async def test_an_account_is_found_explained_compared_with_stripe_and_its_events_are_replayed(
    world: World, terminal: Terminal
) -> None:
    customer = await world.subscriber()
    found = (await terminal.json("admin", "accounts", customer.email))["accounts"]
    assert [each["id"] for each in found] == [customer.id]
    explained = await terminal.tollway("admin", "explain", customer.email)
    assert f"{customer.id} ({customer.account['slug']})" in explained
    assert "So the tier is pro" in explained

    told = await terminal.tollway("reconcile", "--account", customer.id, "--dry-run")
    assert told == "1 accounts compared, 0 differences would be repaired, 0 events had never arrived.\n"

    listed = (await terminal.json("events", "list", "--account", customer.id, "--status", "applied"))["events"]
    paid = next(each["id"] for each in listed if each["type"] == "invoice.paid")
    shown = await terminal.json("events", "show", paid)
    assert shown["payload"]["data"]["object"]["customer"] == await customer.stripe_id()
    assert (await terminal.tollway("events", "replay", paid)).startswith(paid)

    async def status() -> str:
        return str((await terminal.json("events", "show", paid))["status"])

    await until(status, lambda state: state == "applied")
    assert (await customer.billing())["plan"] == "pro"
    assert len(await customer.receipts(1)) == 1  # told again, mailed once
    late = await terminal.json("admin", "late-usage", "--account", customer.id)
    assert late == {"usage": []}
