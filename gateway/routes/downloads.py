"""Downloads: each is one unit of the key's meter and a lease; its signed address lives as long as the lease."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, BaseModel, Field

from gateway.auth import Caller, Downloader
from gateway.backend import Backend, Services
from gateway.body import Body, Text, json_body
from gateway.headers import IdempotencyKey, rate_limit
from gateway.limits import binding, refusal, windows
from gateway.operations import API_KEY, QUOTA_DECIDES, QUOTA_READ, operation
from gateway.problems import Problem
from gateway.signed_urls import PATH, Grant, Signer
from gateway.times import rfc3339_millis
from tollway.quota.v1 import lease_pb2
from tollway.quota.v1 import quota_pb2 as pb

router = APIRouter(tags=["downloads"])
_LEASE = re.compile(r"[A-Za-z0-9_-]{1,100}")
_LEASES_A_PAGE = 1000


def _relative(name: str) -> str:
    # Addresses are rewritten on their way where they hold such parts; what arrives would not be what was signed.
    if any(part in {"", ".", ".."} for part in name.split("/")):
        raise ValueError("expected a path such as models/base.bin, without empty parts, . or ..")
    return name


class Download(Body):
    object: Annotated[Text, AfterValidator(_relative)] = Field(
        min_length=1, max_length=512, description="Its path, without a / in front.", examples=["models/base.bin"]
    )


class Granted(BaseModel):
    requestId: str = Field(  # noqa: N815 (the page's spelling)
        description="Release it when the download is over.", examples=["lease_019ab0c4d5e67f8899aabbccddeeff00"]
    )
    url: str = Field(
        description="Signed; works until `expiresAt`, or until the lease is released.",
        examples=["https://api.example.com/api/download/object/models/base.bin?lease=…&signature=…"],
    )
    expiresAt: str = Field(examples=["2026-07-01T00:10:00.000Z"])  # noqa: N815 (the page's spelling)


class Fetched(BaseModel):
    object: str = Field(examples=["models/base.bin"])
    requestId: str = Field(examples=["lease_019ab0c4d5e67f8899aabbccddeeff00"])  # noqa: N815 (the page's spelling)
    expiresAt: str = Field(examples=["2026-07-01T00:10:00.000Z"])  # noqa: N815 (the page's spelling)


_start = operation(
    "api_key_required",
    "insufficient_scope",
    "no_download_meter",
    "account_not_found",
    "unknown_meter",
    "counter_full",
    "reversed",
    "resource_exhausted",
    *QUOTA_DECIDES,
    body=Download,
    idempotent=True,
    credentials=(API_KEY,),
    metered=True,
)


@router.post("/api/download", summary="Start a download", **_start)
async def start_download(
    caller: Downloader,
    request_id: IdempotencyKey,
    body: Annotated[Download, Depends(json_body(Download))],
    backend: Services,
    request: Request,
    response: Response,
) -> Granted:
    """Counts one download of the meter that keys of this kind drive, and holds one of the places at once.

    With an Idempotency-Key a retry for the same object gets the same requestId and counts once, also after the lease
    has ended; for another object the key is refused. A refusal counts nothing and is not remembered.
    """
    if not caller.key_meter:
        raise Problem("no_download_meter")
    answer = await backend.quota.call(
        backend.leases.Acquire,
        lease_pb2.AcquireRequest(
            account_id=caller.account_id,
            meter=caller.key_meter,
            amount=1,
            request_id=request_id,
            key_id=caller.key_id,
            subject=hashlib.sha256(body.object.encode()).hexdigest(),  # names are longer than what quota keeps
        ),
    )
    decision = answer.decision
    headers = rate_limit(windows(decision.limits, request.app.state.clock))
    headers["Cache-Control"] = "no-store"
    if not decision.allowed:
        raise _refusal(caller, decision, headers, request.app.state.public_url)
    response.headers.update(headers)
    lease, signer = decision.lease, _signer(request)
    url = signer.url(Grant.of(lease, body.object, caller.account_id))
    return Granted(requestId=lease.id, url=url, expiresAt=rfc3339_millis(lease.expire_time))


@router.delete(
    "/api/download/lease/{request_id}",
    status_code=204,
    response_class=Response,
    summary="Release a download's lease",
    **operation(
        "api_key_required",
        "insufficient_scope",
        "account_not_found",
        "lease_not_found",
        *QUOTA_DECIDES,
        credentials=(API_KEY,),
    ),
)
async def release_lease(request_id: str, caller: Downloader, backend: Services) -> Response:
    """Frees its place among those at once, and ends its address. Any key of the account may do it."""
    if not _LEASE.fullmatch(request_id):
        raise Problem("lease_not_found")
    asked = lease_pb2.ReleaseRequest(account_id=caller.account_id, lease_id=request_id)
    await backend.quota.call(backend.leases.Release, asked)
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


@router.get(
    PATH + "{name:path}",
    summary="Fetch what was signed",
    **operation("download_url_invalid", "download_url_expired", *QUOTA_READ, "unavailable"),
)
async def fetch_object(name: str, backend: Services, request: Request, response: Response) -> Fetched:
    """Answers what the address was signed for. Where the objects are elsewhere, that place asks here first."""
    grant = _signer(request).verify(name, request.query_params)
    lease = await _live(grant, backend)
    # Renewing a lease does not make its addresses last longer.
    if lease is None or grant.expires < request.app.state.clock.now().timestamp():
        raise Problem("download_url_expired")
    response.headers["Cache-Control"] = "no-store"
    return Fetched(object=grant.object, requestId=lease.id, expiresAt=rfc3339_millis(lease.expire_time))


async def _live(grant: Grant, backend: Backend) -> pb.Lease | None:
    token = ""
    while True:
        page = await backend.quota.call(
            backend.leases.ListLeases,
            lease_pb2.ListLeasesRequest(
                account_id=grant.account, meter=grant.meter, page_size=_LEASES_A_PAGE, page_token=token
            ),
        )
        found = next((lease for lease in page.leases if lease.id == grant.lease), None)
        token = page.next_page_token
        if found is not None or not token:
            return found


def _signer(request: Request) -> Signer:
    signer: Signer = request.app.state.signer
    return signer


def _refusal(caller: Caller, decision: pb.Decision, headers: dict[str, str], public_url: str) -> Problem:
    """As the page words it: 402 is `payment_required` with a reason; a quota's carries where to buy more *instead of*
    the support contact.
    """
    problem = refusal(caller.key_meter, decision, headers, caller.billing_page(public_url))
    if problem.status == 402:
        problem.code = "payment_required"
    if "checkoutUrl" in problem.extra:
        bound = binding(decision)
        if bound is not None and bound.kind == pb.LIMIT_KIND_QUOTA:
            problem.extra.pop("supportContact", None)
    return problem
