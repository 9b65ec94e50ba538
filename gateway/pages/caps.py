"""The account's own caps, set on the billing page."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.backend import Services
from gateway.pages.billing import refused
from gateway.pages.visits import Posting
from gateway.problems import Problem
from gateway.routes.caps import MAX_UNITS
from services.kit.errors import TollwayError
from tollway.quota.v1 import guardrail_pb2

router = APIRouter(prefix="/dash/{slug}/billing/caps", include_in_schema=False)


@router.post("/{meter}")
async def set_cap(request: Request, meter: str, posting: Posting, backend: Services) -> Response:
    """An empty limit removes the cap."""
    visit, form = posting
    visit.must(visit.may_bill)
    asked = guardrail_pb2.SetCapRequest(account_id=visit.account.id, meter=meter[:100])
    try:
        limit = form.number("limit", MAX_UNITS)
        if limit is not None:
            asked.limit = limit
            asked.auto_stop = form.ticked("auto_stop")
        else:
            asked.auto_stop = True  # as it was before there was one
        await backend.quota.call(backend.guardrails.SetCap, asked)
    except (Problem, TollwayError) as error:
        return await refused(request, visit, error)
    return RedirectResponse(f"{visit.path}?done={'cap-set' if limit is not None else 'cap-removed'}#usage", 303)
