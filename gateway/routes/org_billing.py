"""What an account is on and what it uses, under its address: for people, and for keys that may read it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import Field
from pydantic.config import JsonDict

from gateway.auth import Caller, in_org
from gateway.backend import Services
from gateway.dialects import skytale
from gateway.operations import QUOTA_READ, SESSION, operation
from gateway.routes import usage
from gateway.times import rfc3339
from tollway.billing.v1 import auth_pb2

router = APIRouter(prefix="/v1/orgs/{slug}", tags=["orgs"])
OrgViewer = Annotated[Caller, Depends(in_org(auth_pb2.ROLE_MEMBER, scope="status", others=("billing", "usage")))]
_PROBLEMS = ("account_not_found", "session_required", "insufficient_role")


def _without_default(schema: JsonDict) -> None:
    del schema["default"]


class OrgBilling(skytale.Status):
    grace_end: str = Field(
        "",
        description="Only while a failed payment is owed: until when the plan stays.",
        examples=["2026-04-08T00:00:00Z"],
        json_schema_extra=_without_default,  # it is left out, never empty
    )


@router.get(
    "/billing",
    summary="Read an account's billing status",
    response_model_exclude_unset=True,
    **operation(*_PROBLEMS, credentials=SESSION),
)
async def read_org_billing(caller: OrgViewer, backend: Services, response: Response) -> OrgBilling:
    """As GET /v1/billing, for one of the accounts that a person has a part in, with the end of a grace period."""
    billing = await skytale.billing_of(caller, backend)
    response.headers["Cache-Control"] = "no-store"
    owed = {"grace_end": rfc3339(billing.grace_end_time)} if billing.HasField("grace_end_time") else {}
    return OrgBilling(**skytale.status_of(billing).model_dump(), **owed)


@router.get("/usage", summary="List what an account uses", **operation(*_PROBLEMS, *QUOTA_READ, credentials=SESSION))
async def list_org_usage(caller: OrgViewer, backend: Services, response: Response) -> usage.Usage:
    """As GET /v1/usage, for one of the accounts that a person has a part in."""
    return await usage.list_usage(caller, backend, response)
