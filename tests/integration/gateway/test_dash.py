"""The pages behind the sign-in over HTTP: who gets in, what forged forms get, and what no page lets out.

Quota does not run here: the billing page is there all the same, and says so."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
import pytest_asyncio

from gateway.main import serve
from gateway.pages import cookies
from services.billing.domain.principal import Role
from services.billing.storage.identity import User
from services.kit.ids import new_id
from services.kit.process import Tasks
from tests.infra.servers import Templates
from tests.integration.gateway.org_world import Orgs, running_orgs
from tests.integration.gateway.test_invoices import bill, invoice
from tests.integration.gateway.visitor import Forms, Visitor, visiting

pytestmark = pytest.mark.asyncio(loop_scope="module")
_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def orgs(templates: Templates) -> AsyncIterator[Orgs]:
    """As in production: a key is no session. Shared, so each test has people of its own."""
    plenty = {"sign_in_per_address": 10_000}
    with templates.copy("billing") as dsn:
        async with running_orgs(dsn, local=False, for_billing=plenty) as running:
            yield running


@pytest_asyncio.fixture(loop_scope="module")
async def ada(orgs: Orgs) -> AsyncIterator[Visitor]:
    async with visiting(orgs) as browser:
        yield browser
    orgs.billing.mail.links.clear()


@pytest.fixture
def email() -> str:
    return f"ada{next(_numbers)}@example.com"


@pytest.fixture
def eves() -> str:
    return f"eve{next(_numbers)}@example.com"


async def signed_up(orgs: Orgs, email: str) -> tuple[str, str]:
    """(the account's billing page, its first key)."""
    made = await orgs.billing.sign_up(email)
    return f"/dash/{made.account.slug}/billing", made.api_key


async def join(orgs: Orgs, page: str, email: str, role: Role) -> None:
    context = orgs.billing.context
    async with context.unit_of_work() as uow:
        user = await uow.users.ensure(User(new_id("usr"), email, None, context.wall.now()))
        account = await uow.accounts.by_slug(page.split("/")[2])
        await uow.memberships.add(account.id, user.id, role, context.wall.now())
        await uow.commit()


def cookie(answer: httpx.Response, kind: str) -> str:
    """What the answer sets: the whole header; empty if nothing."""
    found = [value for value in answer.headers.get_list("set-cookie") if f"tollway-{kind}=" in value]
    return found[-1] if found else ""


async def test_a_mailed_link_leads_to_the_page_that_was_wanted(orgs: Orgs, ada: Visitor, email: str) -> None:
    page, _ = await signed_up(orgs, email)
    turned_away = await ada.get(page)
    assert (turned_away.status_code, turned_away.headers["location"]) == (303, "/dash/sign-in")
    let_in = await ada.sign_in(email)
    assert (let_in.status_code, let_in.headers["location"]) == (303, page)
    shown = await ada.get(page)
    assert shown.status_code == 200
    assert "Usage cannot be shown right now" in shown.text  # quota is away
    assert page in (await ada.get("/dash")).text


async def test_an_address_that_nobody_has_gets_the_same_answer(orgs: Orgs, ada: Visitor, email: str, eves: str) -> None:
    await signed_up(orgs, email)
    known, unknown = await ada.ask(email), await ada.ask(eves)
    for answer in (known, unknown):
        assert (answer.status_code, answer.headers["location"], answer.content) == (303, "/dash/sign-in/sent", b"")
        assert not answer.headers.get_list("set-cookie")
    await orgs.billing.later.finished()
    assert [link.recipient for link in orgs.billing.mail.links] == [email]


async def test_opening_the_link_changes_nothing_and_pressing_its_button_works_once(
    orgs: Orgs, ada: Visitor, email: str
) -> None:
    await signed_up(orgs, email)
    await ada.ask(email)
    await orgs.billing.later.finished()
    link = f"/dash/sign-in/link?token={orgs.billing.mail.token}"
    for _ in range(3):
        assert (await ada.get(link)).status_code == 200
    form = Forms((await ada.get(link)).text).to("/dash/sign-in/link")
    async with visiting(orgs) as other:
        assert "Open the link where you asked for it" in (await other.get(link)).text
        stolen = await other.send("/dash/sign-in", "/dash/sign-in/key")
        assert stolen.status_code == 401
        token = Forms((await other.get("/dash/sign-in")).text).to("/dash/sign-in").fields["form_token"]
        refused = await other.post("/dash/sign-in/link", {"token": orgs.billing.mail.token, "form_token": token})
        assert (refused.status_code, cookie(refused, "session")) == (401, "")
    assert (await ada.post("/dash/sign-in/link", form.fields)).status_code == 303
    again = await ada.get(link)
    assert (again.status_code, "This link is over" in again.text) == (401, True)


async def test_the_sessions_cookie_is_out_of_reach_of_scripts_and_other_sites(
    orgs: Orgs, ada: Visitor, email: str
) -> None:
    await signed_up(orgs, email)
    said = cookie(await ada.sign_in(email), "session")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(said.split("; "))
    assert "Secure" not in said  # http, in this test


async def test_over_https_cookies_are_secure_and_bound_to_the_host(billing_database: str) -> None:
    async with running_orgs(billing_database, local=False, public_url="https://billing.example") as orgs:
        answer = await orgs.http.get("/dash/sign-in")
        said = cookie(answer, "browser")
        assert said.startswith("__Host-tollway-browser=")
        assert {"HttpOnly", "Secure", "Path=/"} <= set(said.split("; "))
        assert "Domain" not in said


async def test_signing_in_anew_is_another_session_and_ends_the_one_before(orgs: Orgs, ada: Visitor, email: str) -> None:
    page, _ = await signed_up(orgs, email)
    await ada.sign_in(email)
    first = ada.http.cookies[f"tollway-{cookies.SESSION}"]
    await ada.sign_in(email)
    assert ada.http.cookies[f"tollway-{cookies.SESSION}"] != first
    async with visiting(orgs) as thief:
        thief.http.cookies[f"tollway-{cookies.SESSION}"] = first
        assert (await thief.get(page)).status_code == 303


async def test_signing_out_ends_the_session_for_whoever_kept_its_token(orgs: Orgs, ada: Visitor, email: str) -> None:
    page, _ = await signed_up(orgs, email)
    await ada.sign_in(email)
    kept = ada.http.cookies[f"tollway-{cookies.SESSION}"]
    gone = await ada.send(page, "/dash/sign-out")
    assert (gone.status_code, gone.headers["location"]) == (303, "/dash/sign-in?done=signed-out")
    assert (await ada.get(page)).status_code == 303
    async with visiting(orgs) as thief:
        thief.http.cookies[f"tollway-{cookies.SESSION}"] = kept
        assert (await thief.get(page)).status_code == 303


async def test_too_many_tries_are_told_so_on_the_page(ada: Visitor, email: str) -> None:
    answers = [await ada.ask(email) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [303] * 10 + [429]
    assert "Too many tries" in answers[-1].text


async def test_a_session_by_key_may_do_what_the_key_may(orgs: Orgs, ada: Visitor, email: str) -> None:
    page, key = await signed_up(orgs, email)
    refused = await ada.send("/dash/sign-in", "/dash/sign-in/key", api_key="mk_test_" + "0" * 33)
    assert (refused.status_code, cookie(refused, "session")) == (401, "")
    assert (await ada.send("/dash/sign-in", "/dash/sign-in/key", api_key=key)).headers["location"] == page
    shown = await ada.get(page)
    assert shown.status_code == 200
    assert Forms(shown.text).actions() == {"/dash/sign-out"}  # mk_test_ may look, and change nothing
    token = Forms(shown.text).to("/dash/sign-out").fields["form_token"]
    for action, fields in (
        ("upgrade", {"tier": "paid"}),
        ("manage", {}),
        ("cancel", {}),
        ("resume", {}),
        ("refund", {}),
        ("caps/live_downloads", {"limit": "1"}),
        ("keys", {"kind": "test", "name": "x"}),
    ):
        answer = await ada.post(f"{page}/{action}", {"form_token": token, **fields})
        assert (answer.status_code, "may not do this" in answer.text) == (403, True), action


async def test_what_a_member_may_not_do_is_not_offered_and_refused(orgs: Orgs, email: str) -> None:
    page, _ = await signed_up(orgs, email)
    offered: dict[Role, set[str]] = {}
    for role, address in ((Role.OWNER, email), (Role.ADMIN, "bob@example.com"), (Role.MEMBER, "cy@example.com")):
        async with visiting(orgs) as browser:
            if role is not Role.OWNER:
                await join(orgs, page, address, role)
            await browser.sign_in(address)
            shown = await browser.get(page)
            forms = Forms(shown.text)
            offered[role] = {action.removeprefix(page) for action in forms.actions()} - {"/dash/sign-out"}
            token = forms.to("/dash/sign-out").fields["form_token"]
            refund = await browser.post(f"{page}/refund", {"form_token": token})
            assert (refund.status_code == 403) == (role is not Role.OWNER)
            issued = await browser.post(f"{page}/keys", {"form_token": token, "kind": "test", "name": role.value})
            assert issued.status_code == (403 if role is Role.MEMBER else 402 if role is Role.ADMIN else 200)
    assert offered == {Role.OWNER: {"/upgrade", "/keys"}, Role.ADMIN: {"/upgrade", "/keys"}, Role.MEMBER: set()}


async def test_another_tenants_page_reads_like_one_that_is_not_there(
    orgs: Orgs, ada: Visitor, email: str, eves: str
) -> None:
    page, _ = await signed_up(orgs, email)
    await signed_up(orgs, eves)
    await ada.sign_in(eves)
    strip = re.compile(r"req_[0-9a-f]+")
    theirs, nobodys = await ada.get(page), await ada.get("/dash/nobody/billing")
    assert theirs.status_code == nobodys.status_code == 404
    assert strip.sub("", theirs.text) == strip.sub("", nobodys.text)
    token = Forms((await ada.get("/dash")).text).to("/dash/sign-out").fields["form_token"]
    for path in ("/upgrade", "/manage", "/keys", "/keys/key_1/revoke", "/caps/live_downloads", "/cancel", "/refund"):
        answer = await ada.post(page + path, {"form_token": token, "tier": "paid"})
        assert answer.status_code == 404, path


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"form_token": ""}, 403),
        ({"form_token": "0" * 64}, 403),
        ({"form_token": "é"}, 403),
    ],
)
async def test_a_form_without_the_sessions_token_is_refused(
    orgs: Orgs, ada: Visitor, change: dict[str, str], status: int, email: str
) -> None:
    page, _ = await signed_up(orgs, email)
    await ada.sign_in(email)
    before = len(orgs.billing.payments.sessions)
    answer = await ada.send(page, f"{page}/upgrade", **change)
    assert (answer.status_code, "location" in answer.headers) == (status, False)
    assert len(orgs.billing.payments.sessions) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_form_on_another_site_is_refused_even_with_the_token(
    orgs: Orgs, ada: Visitor, headers: dict[str, str], email: str
) -> None:
    page, _ = await signed_up(orgs, email)
    await ada.sign_in(email)
    before = len(orgs.billing.payments.sessions)
    assert (await ada.send(page, f"{page}/upgrade", headers)).status_code == 403
    assert len(orgs.billing.payments.sessions) == before
    ours = {"Origin": str(orgs.http.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    bought = await ada.send(page, f"{page}/upgrade", ours)
    assert bought.headers["location"].startswith("https://pay.example/")


async def test_another_persons_token_opens_no_form(orgs: Orgs, ada: Visitor, email: str, eves: str) -> None:
    page, _ = await signed_up(orgs, email)
    await ada.sign_in(email)
    other_page, _ = await signed_up(orgs, eves)
    async with visiting(orgs) as eve:
        await eve.sign_in(eves)
        token = Forms((await eve.get(other_page)).text).to("/dash/sign-out").fields["form_token"]
    assert (await ada.send(page, f"{page}/upgrade", form_token=token)).status_code == 403


@pytest.mark.parametrize("path", ["/dash/sign-in", "/dash/sign-in/sent", "/dash", "BILLING", "/dash/nobody/billing"])
async def test_every_page_forbids_what_is_inline_and_is_kept_nowhere(
    orgs: Orgs, ada: Visitor, path: str, email: str
) -> None:
    page, _ = await signed_up(orgs, email)
    await ada.sign_in(email)
    answer = await ada.get(page if path == "BILLING" else path)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=|javascript:", answer.text)


async def test_style_and_script_are_served_for_ever_under_names_of_their_content(orgs: Orgs, ada: Visitor) -> None:
    text = (await ada.get("/dash/sign-in")).text
    names = re.findall(r'(?:href|src)="(/dash/assets/[^"]+)"', text)
    assert len(names) == 3
    for name in names:
        answer = await ada.get(name)
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True)
    older = re.sub(r"page-[0-9a-f]+", "page-0123456789ab", names[0])
    assert (await ada.get(older)).headers["cache-control"] == "no-store"
    for wrong in ("brand-0f766e.js", "brand-0f766e;}.css", "../billing.py", "page-zz.css", "brand-0f766e77.css"):
        assert (await ada.get(f"/dash/assets/{wrong}")).status_code == 404


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>", "{{7*7}}", "{% raw %}", "'\"><script>alert(1)</script>"]
)
async def test_names_are_shown_as_they_were_typed(orgs: Orgs, ada: Visitor, name: str, email: str) -> None:
    page, _ = await signed_up(orgs, email)
    await ada.sign_in(email)
    issued = await ada.send(page, f"{page}/keys", name=name, kind="test")
    for text in (issued.text, (await ada.get(page)).text):
        assert "<img" not in text
        assert "<script>" not in text
        assert ">49<" not in text
        assert (
            name.replace("&", "&amp;")
            .replace("<", "&lt;")
            .replace(">", "&gt;")
            .replace("'", "&#39;")
            .replace('"', "&#34;")
            in text
        )


@pytest.mark.parametrize("name", ["a\r\nSet-Cookie: x=y", "a\x00b", "a\u2028b", "", "x" * 101])
async def test_a_name_that_cannot_be_is_refused_naming_the_field(
    orgs: Orgs, ada: Visitor, name: str, email: str
) -> None:
    page, _ = await signed_up(orgs, email)
    await ada.sign_in(email)
    answer = await ada.send(page, f"{page}/keys", name=name, kind="test")
    assert (answer.status_code, answer.text.count('role="alert"')) == (422, 1)
    assert "Name " in answer.text


async def test_a_form_sent_twice_issues_one_key(orgs: Orgs, ada: Visitor, email: str) -> None:
    page, _ = await signed_up(orgs, email)
    await ada.sign_in(email)
    fields = Forms((await ada.get(page)).text).to(f"{page}/keys").fields | {"name": "CI", "kind": "test"}
    answers = [await ada.post(f"{page}/keys", fields) for _ in range(3)]
    keys = {re.findall(r"mk_test_[A-Za-z0-9]+(?=</textarea>)", answer.text)[0] for answer in answers}
    assert len(keys) == 1
    assert (await ada.get(page)).text.count("Rotate or revoke") == 2  # the first key, and this one


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("a=1&a=2", "application/x-www-form-urlencoded", 400),
        ("a=%ff", "application/x-www-form-urlencoded", 400),
        ("{}", "application/json", 415),
        ("&".join(f"f{number}=1" for number in range(200)), "application/x-www-form-urlencoded", 400),
        ("a=" + "x" * 20_000, "application/x-www-form-urlencoded", 413),
    ],
)
async def test_what_is_no_form_of_ours_is_refused(
    orgs: Orgs, ada: Visitor, body: str, content_type: str, status: int, email: str
) -> None:
    page, _ = await signed_up(orgs, email)
    await ada.sign_in(email)
    answer = await ada.http.post(f"{page}/upgrade", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")


async def test_a_bad_cookie_is_like_none(orgs: Orgs, ada: Visitor, email: str) -> None:
    page, _ = await signed_up(orgs, email)
    for value in ("x", "ses_" + "0" * 33, "ses_key_" + "0" * 33, "ses_'; DROP TABLE account"):
        answer = await ada.http.get(page, headers={"Cookie": f"tollway-session={value}"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/dash/sign-in")


async def test_a_form_of_one_replica_is_taken_by_another_and_a_session_holds_in_both(
    orgs: Orgs, ada: Visitor, email: str
) -> None:
    page, _ = await signed_up(orgs, email)
    await ada.sign_in(email)
    form = Forms((await ada.get(page)).text).to(f"{page}/upgrade")
    async with serve(orgs.config, Tasks()) as port, visiting(orgs) as there:
        there.http.base_url = httpx.URL(f"http://127.0.0.1:{port}")
        there.http.cookies = ada.http.cookies
        assert (await there.get(page)).status_code == 200
        assert (await there.post(form.action, form.fields)).headers["location"].startswith("https://pay.example/")


async def test_the_page_lists_the_newest_invoices_and_says_that_there_are_more(
    orgs: Orgs, ada: Visitor, email: str
) -> None:
    page, _ = await signed_up(orgs, email)
    await ada.sign_in(email)
    async with orgs.billing.context.unit_of_work() as uow:
        account = await uow.accounts.by_slug(page.split("/")[2])
    invoices = [replace(invoice(number), id=f"in_{account.slug.replace('-', '')}{number}") for number in range(13)]
    await bill(orgs, account.id, *invoices)
    text = (await ada.get(page)).text
    assert text.count("ABCD1234-") == 3 * 12  # in the row, and in the words of both links
    assert "ABCD1234-0000" not in text
    assert "These are the newest 12." in text


async def test_code_that_fails_shows_a_page_that_tells_nothing_of_it(
    orgs: Orgs, ada: Visitor, email: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, _ = await signed_up(orgs, email)
    await ada.sign_in(email)

    async def fails(*_: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr("gateway.pages.live.read", fails)
    answer = await ada.get(page)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-request-id"] in answer.text
    assert "secret inside" not in answer.text
    assert "RuntimeError" not in answer.text
