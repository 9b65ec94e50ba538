"""Events told again, after the stream was lost or for whoever is new; use that Stripe heard of late. For operators."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel, Field

from gateway.auth import Operator
from gateway.backend import Services
from gateway.body import Body, Text, json_body
from gateway.operations import OPERATOR, operation
from gateway.times import Instant, rfc3339
from tollway.billing.v1 import outbox_pb2, reconcile_pb2
from tollway.quota.v1 import outbox_pb2 as quota_pb2

router = APIRouter(prefix="/v1/operator", tags=["operator"])
_PRIVATE = {"Cache-Control": "no-store"}
CALL_S = 30.0  # a page is some hundred rows


class RepublishBody(Body):
    service: Literal["billing", "quota"] = Field(description="Whose events; the others announce none.")
    since: Instant | None = Field(None, description="null: all that are kept.", examples=["2026-04-01T00:00:00Z"])
    page_token: Text | None = Field(None, max_length=100, description="null: from the beginning.")


class Republished(BaseModel):
    events: int = Field(description="In this page.")
    next_page_token: str | None = Field(description="null: this was the last page.")


class SnapshotBody(Body):
    page_token: Text | None = Field(None, max_length=100, description="null: from the beginning.")


class Snapshots(BaseModel):
    accounts: int = Field(description="In this page.")
    next_page_token: str | None = Field(description="null: this was the last page.")


class LateUse(BaseModel):
    account_id: str
    meter: str = Field(examples=["live_downloads"])
    period_start: str = Field(examples=["2026-03-01T00:00:00Z"])
    period_end: str = Field(description="Exclusive.", examples=["2026-04-01T00:00:00Z"])
    used: int = Field(description="Units of the whole period.")
    sent: int = Field(description="Of these, what Stripe's meter has taken.")
    recorded_at: str


class LateUsage(BaseModel):
    usage: list[LateUse]


@router.post(
    "/events/republish",
    summary="Publish events again",
    **operation("invalid_argument", body=RepublishBody, credentials=OPERATOR),
)
async def republish_events(
    operator: Operator,
    body: Annotated[RepublishBody, Depends(json_body(RepublishBody))],
    backend: Services,
    response: Response,
) -> Republished:
    """Refills a lost stream. Some at a time: ask again with `next_page_token`. Events keep their ids, so consumers drop
    what they have seen; published ones are kept for at least seven days."""
    since = Timestamp()
    if body.since is not None:
        since.FromDatetime(body.since)
    given = since if body.since is not None else None
    answer: outbox_pb2.RepublishEventsResponse | quota_pb2.RepublishEventsResponse
    if body.service == "quota":
        theirs = quota_pb2.RepublishEventsRequest(since=given, page_token=body.page_token or "")
        answer = await backend.quota.call(backend.quota_outbox.RepublishEvents, theirs, timeout_s=CALL_S)
    else:
        asked = outbox_pb2.RepublishEventsRequest(since=given, page_token=body.page_token or "")
        answer = await backend.billing.call(backend.outbox.RepublishEvents, asked, timeout_s=CALL_S)
    response.headers.update(_PRIVATE)
    return Republished(events=answer.events, next_page_token=answer.next_page_token or None)


@router.post(
    "/events/snapshot",
    summary="Announce what every account is entitled to",
    **operation("invalid_argument", body=SnapshotBody, credentials=OPERATOR),
)
async def announce_snapshots(
    operator: Operator,
    body: Annotated[SnapshotBody, Depends(json_body(SnapshotBody))],
    backend: Services,
    response: Response,
) -> Snapshots:
    """For whoever is new: each account's EntitlementsChanged with its present version. Some at a time, as above."""
    asked = outbox_pb2.AnnounceSnapshotsRequest(page_token=body.page_token or "")
    answer = await backend.billing.call(backend.outbox.AnnounceSnapshots, asked, timeout_s=CALL_S)
    response.headers.update(_PRIVATE)
    return Snapshots(accounts=answer.accounts, next_page_token=answer.next_page_token or None)


@router.get(
    "/late-usage",
    summary="List use that came after its invoice",
    **operation("account_not_found", credentials=OPERATOR),
)
async def list_late_usage(
    operator: Operator,
    backend: Services,
    response: Response,
    account_id: Annotated[str, Query(max_length=100, description="Only this one's.")] = "",
) -> LateUsage:
    """Periods of which some use reached Stripe when their invoice was final: it is on the next one. Newest first, at
    most 1000."""
    asked = reconcile_pb2.ListLateUsageRequest(account_id=account_id)
    answer = await backend.billing.call(backend.reconciling.ListLateUsage, asked)
    response.headers.update(_PRIVATE)
    return LateUsage(
        usage=[
            LateUse(
                account_id=each.account_id,
                meter=each.meter,
                period_start=rfc3339(each.period_start),
                period_end=rfc3339(each.period_end),
                used=each.used,
                sent=each.sent,
                recorded_at=rfc3339(each.record_time),
            )
            for each in answer.usage
        ]
    )
