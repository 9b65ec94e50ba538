"""`/dash/device`: a person compares the code that a program shows, chooses an account, and lets the program in."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.backend import Backend, Services
from gateway.pages import cookies, forms, rendering
from gateway.pages.visits import SignInNeeded, credential, shop_of
from gateway.problems import from_error
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from tollway.billing.v1 import device_pb2, identity_pb2

router = APIRouter(prefix="/dash/device", include_in_schema=False)
_REFUSALS = (FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted)


async def _ask(request: Request, *, code: str = "", status: int = 200, problem: str = "") -> Response:
    """The page that asks for the code."""
    return rendering.page(
        request,
        "device_code.html",
        await shop_of(request),
        status,
        form_token=forms.token(cookies.session(request)),
        code=code,
        problem=problem,
    )


@router.get("")
async def device_page(request: Request, backend: Services) -> Response:
    """Without a code it asks for one; with one it asks whether to let the program in."""
    who = credential(request)
    code = request.query_params.get("code", "")[:20]
    if not code:
        return await _ask(request)
    orgs = (await backend.billing.call(backend.identity.ListOrgs, identity_pb2.ListOrgsRequest(credential=who))).orgs
    asked = device_pb2.GetDeviceLoginRequest(user_code=code, session_token=who.session_token)
    try:
        found = (await backend.billing.call(backend.devices.GetDeviceLogin, asked)).device_login
    except _REFUSALS as error:
        problem = from_error(error)
        return await _ask(request, code=code, status=problem.status, problem=problem.detail)
    if found.state != device_pb2.DEVICE_LOGIN_STATE_PENDING:
        return await _done(request, found)
    return rendering.page(
        request,
        "device.html",
        await shop_of(request),
        form_token=forms.token(who.session_token),
        device=found,
        orgs=orgs,
    )


@router.post("")
async def decide(request: Request, backend: Services) -> Response:
    session = cookies.session(request)
    if not session:
        raise SignInNeeded
    form = await forms.read(request, session)
    code, approve = form.text("code", 20, least=1), form.text("decision", 10) == "approve"
    try:
        if approve:
            await _approve(backend, session, code, form.text("slug", 100, least=1))
        else:
            asked = device_pb2.DenyDeviceLoginRequest(user_code=code, session_token=session)
            await backend.billing.call(backend.devices.DenyDeviceLogin, asked)
    except _REFUSALS as error:
        problem = from_error(error)
        return await _ask(request, code=code, status=problem.status, problem=problem.detail)
    return RedirectResponse(f"/dash/device/{'approved' if approve else 'denied'}", 303)


async def _approve(backend: Backend, session: str, code: str, slug: str) -> None:
    asked = device_pb2.ApproveDeviceLoginRequest(user_code=code, session_token=session, slug=slug)
    await backend.billing.call(backend.devices.ApproveDeviceLogin, asked)


@router.get("/approved")
async def approved(request: Request) -> Response:
    return await _over(request, approved=True)


@router.get("/denied")
async def denied(request: Request) -> Response:
    return await _over(request, approved=False)


async def _done(request: Request, login: device_pb2.DeviceLogin) -> Response:
    return await _over(request, approved=login.state == device_pb2.DEVICE_LOGIN_STATE_APPROVED)


async def _over(request: Request, *, approved: bool) -> Response:
    return rendering.page(request, "device_done.html", await shop_of(request), approved=approved)
