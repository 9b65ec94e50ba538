"""API keys on the billing page: issued and rotated with the key shown once, revoked after a question."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from google.protobuf.duration_pb2 import Duration

from gateway.backend import Backend, Services
from gateway.pages import rendering
from gateway.pages.billing import refused
from gateway.pages.visits import Posting, Visit, Visiting, shop_of
from gateway.problems import Problem
from services.kit.errors import TollwayError
from tollway.billing.v1 import key_pb2

router = APIRouter(prefix="/dash/{slug}/billing/keys", include_in_schema=False)
_DAY_S = 86_400
OVERLAPS = {"0": "ends at once", "3600": "1 hour", "86400": "1 day", "604800": "7 days"}


@router.post("")
async def issue(request: Request, posting: Posting, backend: Services) -> Response:
    """The answer itself shows the key, once: a redirect would have to keep it somewhere. Sending the form again shows
    the same key."""
    visit, form = posting
    visit.must(visit.may_issue_keys)
    try:
        asked = key_pb2.IssueKeyRequest(
            account_id=visit.account.id,
            actor=visit.caller.actor,
            kind=form.text("kind", 63, least=1),
            name=form.text("name", 100, least=1),
            request_id=form.text("request_id", 64),
        )
        answer = await backend.billing.call(backend.keys.IssueKey, asked)
    except (Problem, TollwayError) as error:
        return await refused(request, visit, error)
    return await _shown(request, visit, answer.key, answer.api_key, None)


@router.get("/{key_id}")
async def key_page(request: Request, key_id: str, visit: Visiting, backend: Services) -> Response:
    """One key, with what can be done to it."""
    visit.must(visit.may_issue_keys)
    key = await _find(backend, visit, key_id)
    return rendering.page(
        request,
        "key.html",
        await shop_of(request),
        visit=visit,
        form_token=visit.form_token,
        key=key,
        ending=key.HasField("revoke_time"),
        overlaps=OVERLAPS,
        request_id=rendering.new_request_id(),
    )


@router.post("/{key_id}/rotate")
async def rotate(request: Request, key_id: str, posting: Posting, backend: Services) -> Response:
    visit, form = posting
    visit.must(visit.may_issue_keys)
    overlap = form.text("overlap", 10)
    if overlap not in OVERLAPS:
        raise Problem("form_malformed")
    asked = key_pb2.RotateKeyRequest(
        account_id=visit.account.id,
        actor=visit.caller.actor,
        key_id=key_id[:100],
        overlap=Duration(seconds=int(overlap)),
        request_id=form.text("request_id", 64),
    )
    try:
        answer = await backend.billing.call(backend.keys.RotateKey, asked)
    except TollwayError as error:
        return await refused(request, visit, error)
    return await _shown(request, visit, answer.key, answer.api_key, answer.replaced)


@router.post("/{key_id}/revoke")
async def revoke(request: Request, key_id: str, posting: Posting, backend: Services) -> Response:
    visit, _ = posting
    visit.must(visit.may_issue_keys)
    asked = key_pb2.RevokeKeyRequest(account_id=visit.account.id, actor=visit.caller.actor, key_id=key_id[:100])
    await backend.billing.call(backend.keys.RevokeKey, asked)
    return RedirectResponse(f"{visit.path}?done=key-revoked#keys", 303)


async def _find(backend: Backend, visit: Visit, key_id: str) -> key_pb2.Key:
    """Raises key_not_found."""
    token = ""
    while True:
        asked = key_pb2.ListKeysRequest(account_id=visit.account.id, page_size=1000, page_token=token)
        page = await backend.billing.call(backend.keys.ListKeys, asked)
        found = next((key for key in page.keys if key.id == key_id), None)
        if found is not None:
            return found
        token = page.next_page_token
        if not token:
            raise Problem("key_not_found")


async def _shown(
    request: Request, visit: Visit, key: key_pb2.Key, secret: str, replaced: key_pb2.Key | None
) -> Response:
    return rendering.page(
        request,
        "key_shown.html",
        await shop_of(request),
        visit=visit,
        form_token=visit.form_token,
        key=key,
        secret=secret,
        replaced=replaced,
    )
