"""Refusals as pages: what went wrong, in words, and where to go on. Who is not signed in is led to do so."""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from gateway import facts, problems
from gateway.pages import cookies, rendering
from gateway.pages.visits import SignInNeeded, shop_of
from services.kit.errors import TollwayError
from tollway.billing.v1 import billing_pb2

PREFIX = "/dash"
_SIGNED_OUT = frozenset({"session_invalid"})


def of_page(path: str) -> bool:
    """Whether people see what is answered there."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def bare(problem: problems.Problem, request_id: str) -> Response:
    """A page that needs nothing of anybody, for when code has failed."""
    text = rendering.TEMPLATES.get_template("dash/error.html").render(
        shop=rendering.seller(billing_pb2.ListPlansResponse()),
        problem=problem,
        request_id=request_id,
        signed_in=True,
    )
    headers = {"Content-Security-Policy": rendering.policy(""), "Cache-Control": "no-store"}
    return Response(text, problem.status, headers, "text/html; charset=utf-8")


async def answer(request: Request, error: Exception) -> Response:
    """The exception handler of the application: problem documents for programs, pages under /dash."""
    if not of_page(request.url.path):
        return await problems.answer(request, error)
    if isinstance(error, SignInNeeded):
        return _to_sign_in(request)
    problem = problems.as_problem(request, error)
    if problem.code in _SIGNED_OUT:
        response = _to_sign_in(request)
        cookies.drop(request, response, cookies.SESSION)
        return response
    if problem.status >= 500:
        facts.of(request.scope).error = repr(error)
    response = rendering.page(
        request,
        "error.html",
        await _shop(request),
        problem.status,
        problem=problem,
        request_id=facts.of(request.scope).request_id,
        signed_in=bool(cookies.session(request)),
    )
    for name in ("Retry-After", "Allow"):
        if name in problem.headers:
            response.headers[name] = problem.headers[name]
    return response


def _to_sign_in(request: Request) -> Response:
    response = RedirectResponse(f"{PREFIX}/sign-in", 303)
    wanted = request.url.path
    if request.query_params.get("code"):
        wanted += f"?code={request.query_params['code']}"
    if not cookies.is_page(wanted) and wanted.startswith(f"{PREFIX}/"):  # a page below an account's
        wanted = "/".join(wanted.split("/")[:3]) + "/billing"
    if cookies.is_page(wanted) and wanted != PREFIX:
        cookies.put(request, response, cookies.NEXT, wanted, cookies.BROWSER_LIFE)
    response.headers["Cache-Control"] = "no-store"
    return response


async def _shop(request: Request) -> billing_pb2.ListPlansResponse:
    """The seller; without a name when billing does not answer either."""
    try:
        return await shop_of(request)
    except TollwayError:
        return billing_pb2.ListPlansResponse()
