"""Enterprise by agreement, through real processes."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.e2e.manashiki import manashiki, sign_up, world
from tests.e2e.world import World

__all__ = ["manashiki", "world"]  # fixtures


async def test_an_operator_puts_an_account_on_enterprise_until_a_day_and_can_say_why(world: World) -> None:
    org = await sign_up(world)
    headers = {"Authorization": f"Bearer {world.stack.operator_token}"}
    path = f"/v1/operator/accounts/{org.customer.id}"
    assert (await world.gateway.put(f"{path}/override", json={"tier": "enterprise", "terms": "x"})).status_code == 401
    end = await world.now() + 40 * 86_400
    body = {"tier": "enterprise", "terms": "Order 4711", "ends_at": datetime.fromtimestamp(end, UTC).isoformat()}
    answer = await world.gateway.put(f"{path}/override", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    await org.becomes("enterprise")
    assert (await org.status())["liveKeyIssuanceAllowed"]
    found = await world.gateway.get("/v1/operator/accounts", params={"query": org.customer.email}, headers=headers)
    assert [(each["id"], each["overridden"]) for each in found.json()["accounts"]] == [(org.customer.id, True)]
    told = (await world.gateway.get(path, headers=headers)).json()
    assert told["override"]["terms"] == "Order 4711"
    assert "enterprise" in told["because"][-1]
    await world.advance_to(end - 3600)
    assert (await org.status())["tier"] == "enterprise"
    await world.advance_to(end + 60)
    await org.becomes("free")
