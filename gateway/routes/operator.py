"""What operators do in an incident. Their token is in the gateway's settings; no account's credentials count here."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from gateway.auth import Operator
from gateway.backend import Services
from gateway.body import Body, Text, json_body
from gateway.operations import OPERATOR, operation
from gateway.times import rfc3339
from tollway.quota.v1 import kill_switch_pb2 as pb

router = APIRouter(tags=["operator"])
log = structlog.get_logger(__name__)


class Switch(Body):
    enabled: bool = Field(description="true: refuse every use from the next decision on. false: release it.")
    reason: Text = Field("", max_length=300, description="For people; needed to throw it.", examples=["incident 4711"])
    meter: Text | None = Field(
        None, min_length=1, max_length=100, description="null: every meter", examples=["live_downloads"]
    )


class KillSwitch(BaseModel):
    meter: str | None = Field(description="null: every meter")
    enabled: bool
    reason: str
    changed_at: str | None = Field(description="null: it was never thrown", examples=["2026-04-01T00:00:00Z"])


class KillSwitches(BaseModel):
    enabled: bool = Field(description="Of the switch over every meter")
    reason: str
    switches: list[KillSwitch] = Field(description="The one over every meter first, then those of single meters")


@router.put(
    "/v1/operator/kill-switch",
    summary="Throw or release a kill switch",
    **operation("invalid_argument", "unknown_meter", "store_unavailable", body=Switch, credentials=OPERATOR),
)
async def set_kill_switch(
    operator: Operator, body: Annotated[Switch, Depends(json_body(Switch))], backend: Services, response: Response
) -> KillSwitch:
    """In force on the next decision everywhere. What was counted stays counted; asking twice changes nothing."""
    answer = await backend.quota.call(
        backend.switches.SetKillSwitch,
        pb.SetKillSwitchRequest(meter=body.meter or "", enabled=body.enabled, reason=body.reason),
    )
    response.headers["Cache-Control"] = "no-store"
    log.warning(
        "operator.kill_switch",
        actor=operator.actor.id,
        meter=body.meter or "all",
        enabled=body.enabled,
        reason=body.reason,
    )
    return _switch(answer.kill_switch)


@router.get(
    "/v1/operator/kill-switch", summary="List kill switches", **operation("store_unavailable", credentials=OPERATOR)
)
async def list_kill_switches(operator: Operator, backend: Services, response: Response) -> KillSwitches:
    """Every switch that was ever thrown, and how it stands."""
    answer = await backend.quota.call(backend.switches.GetKillSwitch, pb.GetKillSwitchRequest())
    response.headers["Cache-Control"] = "no-store"
    switches = [_switch(each) for each in answer.kill_switches]
    return KillSwitches(enabled=switches[0].enabled, reason=switches[0].reason, switches=switches)


def _switch(switch: pb.KillSwitch) -> KillSwitch:
    return KillSwitch(
        meter=switch.meter or None,
        enabled=switch.enabled,
        reason=switch.reason,
        changed_at=rfc3339(switch.change_time) if switch.HasField("change_time") else None,
    )
