"""Signing in by a mailed link or by an API key, and signing out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.backend import Backend, Services
from gateway.headers import RemoteAddress
from gateway.pages import cookies, forms, rendering
from gateway.pages.visits import credential, shop_of
from gateway.problems import Problem, from_error
from services.kit.errors import ResourceExhausted, TollwayError, Unauthenticated
from tollway.billing.v1 import identity_pb2, sign_in_pb2

router = APIRouter(prefix="/dash", include_in_schema=False)
_LINK_MINUTES = 15


async def _form_page(
    request: Request, *, status: int = 200, problem: str = "", by_key: bool = False, email: str = ""
) -> Response:
    browser = cookies.browser(request) or cookies.new_browser()
    response = rendering.page(
        request,
        "sign_in.html",
        await shop_of(request),
        status,
        form_token=forms.token(browser),
        problem=problem,
        by_key=by_key,
        email=email,
        signed_out=request.query_params.get("done") == "signed-out",
    )
    cookies.put(request, response, cookies.BROWSER, browser, cookies.BROWSER_LIFE)
    return response


@router.get("/sign-in")
async def sign_in_page(request: Request) -> Response:
    response = await _form_page(request)
    wanted = request.query_params.get("next", "")
    if wanted and cookies.is_page(wanted):
        cookies.put(request, response, cookies.NEXT, wanted, cookies.BROWSER_LIFE)
    return response


@router.post("/sign-in")
async def request_link(request: Request, backend: Services, remote_address: RemoteAddress) -> Response:
    """The answer is the same for every address."""
    browser = cookies.browser(request)
    form = await forms.read(request, browser)
    email = ""
    try:
        email = form.text("email", 254, least=1)
        asked = sign_in_pb2.RequestSignInLinkRequest(email=email, browser_token=browser, remote_address=remote_address)
        await backend.billing.call(backend.coming_in.RequestSignInLink, asked)
    except (Problem, TollwayError) as error:
        problem = error if isinstance(error, Problem) else from_error(error)
        return await _form_page(request, status=problem.status, problem=problem.detail, email=email)
    return RedirectResponse("/dash/sign-in/sent", 303)


@router.get("/sign-in/sent")
async def link_sent(request: Request) -> Response:
    return rendering.page(request, "sent.html", await shop_of(request), minutes=_LINK_MINUTES)


@router.get("/sign-in/link")
async def link_page(request: Request, backend: Services) -> Response:
    """Shows a button and changes nothing: programs that look at mails follow links, and press no buttons."""
    token, browser = request.query_params.get("token", "")[:200], cookies.browser(request)
    asked = sign_in_pb2.CheckSignInLinkRequest(token=token, browser_token=browser)
    try:
        found = await backend.billing.call(backend.coming_in.CheckSignInLink, asked)
    except Unauthenticated as error:
        return await _link_refused(request, error)
    return rendering.page(
        request,
        "link.html",
        await shop_of(request),
        token=token,
        email=found.email,
        form_token=forms.token(browser),
    )


@router.post("/sign-in/link")
async def follow_link(request: Request, backend: Services) -> Response:
    browser = cookies.browser(request)
    form = await forms.read(request, browser)
    asked = sign_in_pb2.SignInWithLinkRequest(token=form.text("token", 200), browser_token=browser)
    try:
        answer = await backend.billing.call(backend.coming_in.SignInWithLink, asked)
    except Unauthenticated as error:
        return await _link_refused(request, error)
    return await _let_in(request, backend, answer.session, answer.session_token)


@router.post("/sign-in/key")
async def sign_in_with_key(request: Request, backend: Services, remote_address: RemoteAddress) -> Response:
    form = await forms.read(request, cookies.browser(request))
    asked = sign_in_pb2.SignInWithKeyRequest(api_key=form.text("api_key", 128), remote_address=remote_address)
    try:
        answer = await backend.billing.call(backend.coming_in.SignInWithKey, asked)
    except (Unauthenticated, ResourceExhausted) as error:
        problem = from_error(error)
        return await _form_page(request, status=problem.status, problem=problem.detail, by_key=True)
    return await _let_in(request, backend, answer.session, answer.session_token)


@router.post("/sign-out")
async def sign_out(request: Request, backend: Services) -> Response:
    token = cookies.session(request)
    if not token:
        return RedirectResponse("/dash/sign-in?done=signed-out", 303)
    await forms.read(request, token)
    await backend.billing.call(backend.identity.EndSession, identity_pb2.EndSessionRequest(session_token=token))
    response = RedirectResponse("/dash/sign-in?done=signed-out", 303)
    cookies.drop(request, response, cookies.SESSION, cookies.NEXT)
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


async def _link_refused(request: Request, error: Unauthenticated) -> Response:
    other = error.error_reason == "SIGN_IN_LINK_OTHER_BROWSER"
    signed_in = bool(cookies.session(request))  # the link may be the one that let this browser in
    shop = await shop_of(request)
    return rendering.page(request, "link_refused.html", shop, 401, other_browser=other, signed_in=signed_in)


async def _let_in(request: Request, backend: Backend, session: identity_pb2.Session, token: str) -> Response:
    """A new session, whatever the browser had before: who knew the old token does not know this one."""
    if earlier := cookies.session(request):
        await backend.billing.call(backend.identity.EndSession, identity_pb2.EndSessionRequest(session_token=earlier))
    where = cookies.next_path(request) or await _only_account(backend, token) or "/dash"
    response = RedirectResponse(where, 303)
    life = session.expire_time.ToDatetime(UTC) - datetime.now(UTC)
    cookies.put(request, response, cookies.SESSION, token, max(life, timedelta(0)))
    cookies.drop(request, response, cookies.NEXT)
    return response


async def _only_account(backend: Backend, token: str) -> str:
    asked = identity_pb2.ListOrgsRequest(credential=identity_pb2.Credential(session_token=token))
    orgs = (await backend.billing.call(backend.identity.ListOrgs, asked)).orgs
    return f"/dash/{orgs[0].account.slug}/billing" if len(orgs) == 1 else ""


@router.get("")
async def accounts(request: Request, backend: Services) -> Response:
    """The accounts that the person has a part in."""
    asked = identity_pb2.ListOrgsRequest(credential=credential(request))
    answer = await backend.billing.call(backend.identity.ListOrgs, asked)
    session = cookies.session(request)
    return rendering.page(
        request, "accounts.html", await shop_of(request), orgs=answer.orgs, form_token=forms.token(session)
    )
