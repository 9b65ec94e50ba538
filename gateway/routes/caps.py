"""The cap that an account sets on itself."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from gateway.auth import OrgBiller
from gateway.backend import Services
from gateway.body import Body, json_body
from gateway.limits import Limit, to_limit
from gateway.operations import QUOTA_DECIDES, SESSION, operation
from tollway.quota.v1 import guardrail_pb2 as pb

router = APIRouter(prefix="/v1/orgs/{slug}/caps", tags=["orgs"])
MAX_UNITS = 2**62


class Cap(Body):
    limit: int | None = Field(
        ge=0,
        le=MAX_UNITS,
        description="Units of the cap's period; null removes it.",
        examples=[5000],
    )
    auto_stop: bool = Field(True, description="false: reaching it is announced and refuses nothing.")


class CapState(Limit):
    meter: str = Field(examples=["live_downloads"])


@router.put(
    "/{meter}",
    summary="Set or remove a cap",
    **operation(
        "account_not_found",
        "session_required",
        "insufficient_role",
        "invalid_argument",
        "unknown_meter",
        "cap_not_offered",
        *QUOTA_DECIDES,
        body=Cap,
        credentials=SESSION,
    ),
)
async def set_cap(
    meter: str,
    caller: OrgBiller,
    body: Annotated[Cap, Depends(json_body(Cap))],
    backend: Services,
    response: Response,
) -> CapState:
    """In force from the next use on. Raising or removing it ends a suspension; asking twice changes nothing."""
    asked = pb.SetCapRequest(account_id=caller.account_id, meter=meter[:100], auto_stop=body.auto_stop)
    if body.limit is not None:
        asked.limit = body.limit
    answer = await backend.quota.call(backend.guardrails.SetCap, asked)
    response.headers["Cache-Control"] = "no-store"
    return CapState(**vars(to_limit(answer.cap)), meter=meter)
