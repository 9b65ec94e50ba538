"""The kill switch through real processes: in force on the next decision of every replica, and announced."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from services.kit.config import Settings
from services.kit.errors import TollwayError
from services.kit.rpc import Link
from tests.integration.quota import world
from tollway.billing.v1 import entitlement_pb2
from tollway.client import subscribe
from tollway.quota.v1 import events_pb2, kill_switch_pb2, kill_switch_pb2_grpc


def two_meters() -> entitlement_pb2.Entitlements:
    """`messages` says how it is suspended, `calls` leaves it to the service."""
    message = world.entitlements("acct_a", limit=None)
    message.meters[0].suspended_refusal.MergeFrom(
        entitlement_pb2.Refusal(reason="messages_suspended", http_status=503, detail="Suspended.")
    )
    message.meters.add(name="calls")
    return message


async def test_it_holds_on_the_next_decision_of_every_replica_until_it_is_released(
    tmp_path: Path, database: str
) -> None:
    async with world.tables(database) as engine:
        await world.put(engine, two_meters())
    with world.process(tmp_path, database) as one, world.process(tmp_path, database) as two:
        async with (
            world.client(one.address) as first,
            world.client(two.address) as second,
            grpc.aio.insecure_channel(two.address) as channel,
        ):
            operator = kill_switch_pb2_grpc.KillSwitchServiceStub(channel)

            async def turn(enabled: bool, meter: str = "") -> kill_switch_pb2.KillSwitch:
                request = kill_switch_pb2.SetKillSwitchRequest(meter=meter, enabled=enabled, reason="incident")
                return (await operator.SetKillSwitch(request, timeout=10)).kill_switch

            async def reasons(meter: str) -> set[str]:
                decisions = [await world.consume(stub, "acct_a", meter=meter) for stub in (first, second)]
                assert all(each.refusal.http_status in {0, 503} for each in decisions)
                return {each.refusal.reason for each in decisions}

            for _ in range(5):
                await turn(True, "messages")
                assert (await reasons("messages"), await reasons("calls")) == ({"messages_suspended"}, {""})
                await turn(True)
                assert (await reasons("messages"), await reasons("calls")) == ({"messages_suspended"}, {"suspended"})
                await turn(False, "messages")
                assert await reasons("messages") == {"messages_suspended"}
                await turn(False)
                assert (await reasons("messages"), await reasons("calls")) == ({""}, {""})
            granted = await world.consume(first, "acct_a", request_id="k")
            await turn(True)
            refused = await world.consume(first, "acct_a")
            assert (refused.binding_limit, refused.HasField("retry_after")) == ("kill_switch", False)
            assert (await world.consume(second, "acct_a", request_id="k")).replayed  # what was granted stays granted
            assert refused.limits[0].used == granted.limits[0].used


async def test_each_change_is_announced_once_and_the_same_again_is_no_change(
    tmp_path: Path, database: str, nats_url: str
) -> None:
    reason = tmp_path.name  # the stream is shared: these are ours
    async with world.tables(database) as engine:
        await world.put(engine, two_meters())
    with world.process(tmp_path, database, nats_url=nats_url) as quota:
        link = Link(quota.address, Settings(local=True))
        operator = kill_switch_pb2_grpc.KillSwitchServiceStub(link.channel)
        async with asyncio.timeout(20):
            while not await link.healthy():
                pass
        stood = await link.call(operator.GetKillSwitch, kill_switch_pb2.GetKillSwitchRequest())
        assert [(each.meter, each.enabled, each.HasField("change_time")) for each in stood.kill_switches] == [
            ("", False, False)
        ]
        told = []
        for enabled in (False, True, True, False):
            request = kill_switch_pb2.SetKillSwitchRequest(meter="calls", enabled=enabled, reason=reason)
            told.append((await link.call(operator.SetKillSwitch, request)).kill_switch)
        assert told.pop(0) == kill_switch_pb2.KillSwitch(meter="calls")  # it was never thrown: nothing has changed
        assert told[0] == told[1]
        seen: list[events_pb2.KillSwitchChanged] = []
        async with asyncio.timeout(20):
            async for event in subscribe(nats_url, events_pb2.KillSwitchChanged):
                if event.message.reason == reason:
                    assert event.account_id == "all"
                    seen.append(event.message)
                if len(seen) == 2:
                    break
        assert [(each.meter, each.enabled) for each in seen] == [("calls", True), ("calls", False)]
        assert seen[0].change_time.seconds == told[0].change_time.seconds

        async def fault(**fields: object) -> tuple[str, str, str]:
            with pytest.raises(TollwayError) as caught:
                await link.call(operator.SetKillSwitch, kill_switch_pb2.SetKillSwitchRequest(**fields))  # type: ignore[arg-type]
            return caught.value.code, caught.value.error_reason, caught.value.field

        assert await fault(enabled=True) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT", "reason")
        assert await fault(meter="nonsense", enabled=True, reason="x") == ("INVALID_ARGUMENT", "UNKNOWN_METER", "meter")
        assert await fault(enabled=True, reason="a\nb") == ("INVALID_ARGUMENT", "INVALID_ARGUMENT", "reason")
        await link.close()
