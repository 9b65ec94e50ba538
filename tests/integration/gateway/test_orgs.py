"""Keys, members and the audit log over REST: who may, what is answered, and that no tenant sees another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.app import create
from gateway.auth import OutsideBiller
from gateway.backend import Backend
from services.billing.application import sessions
from services.billing.domain.principal import Role
from services.billing.storage.identity import User
from services.kit.ids import new_id
from tests.integration.gateway.org_world import Orgs, issuing, running_orgs
from tests.integration.gateway.test_routes import assert_problem


@pytest.fixture
async def orgs(billing_database: str) -> AsyncIterator[Orgs]:
    """As in production: a key is no session."""
    async with running_orgs(billing_database, local=False) as running:
        yield running


@pytest.fixture
async def local_orgs(billing_database: str) -> AsyncIterator[Orgs]:
    async with running_orgs(billing_database, local=True) as running:
        yield running


async def signed_in(orgs: Orgs, email: str = "ada@example.com") -> tuple[str, str, str]:
    """(slug, session token, API key) of a person who signed up and signed in."""
    made = await orgs.billing.sign_up(email)
    _, token = await sessions.create_session(email, orgs.billing.context)
    return made.account.slug, token, made.api_key


async def join(orgs: Orgs, slug: str, email: str, role: Role) -> str:
    """The session token of somebody who joined."""
    context = orgs.billing.context
    async with context.unit_of_work() as uow:
        user = await uow.users.ensure(User(new_id("usr"), email, None, context.wall.now()))
        account = await uow.accounts.by_slug(slug)
        await uow.memberships.add(account.id, user.id, role, context.wall.now())
        await uow.commit()
    return (await sessions.create_session(email, context))[1]


async def test_a_person_who_signed_in_issues_lists_rotates_and_revokes_keys(orgs: Orgs) -> None:
    slug, session, first = await signed_in(orgs)
    path = f"/v1/orgs/{slug}/keys"
    issued = await orgs.call("POST", path, session, {"kind": "test", "name": "CI"})
    assert issued.status_code == 201, issued.text
    made = issued.json()
    assert made["api_key"].startswith("mk_test_")
    assert issued.headers["cache-control"] == "no-store"
    assert (made["kind"], made["name"], made["status"], made["revoked_at"]) == ("test", "CI", "active", None)
    listed = (await orgs.call("GET", path, session)).json()
    assert next(key["id"] for key in listed["keys"]) == made["id"]
    assert made["api_key"] not in str(listed)
    assert first not in str(listed)

    turned = await orgs.call("POST", f"{path}/{made['id']}/rotate", session, {"overlap_seconds": 3600})
    assert turned.status_code == 201, turned.text
    assert turned.json()["replaced"]["status"] == "ending"
    assert turned.json()["replaced"]["successor_id"] == turned.json()["id"]
    for secret in (made["api_key"], turned.json()["api_key"]):
        assert (await orgs.call("POST", "/v1/auth/token", secret)).status_code == 200
    assert_problem(await orgs.call("POST", f"{path}/{made['id']}/rotate", session), 409, "key_ended")

    for key_id in (made["id"], turned.json()["id"], turned.json()["id"]):
        gone = await orgs.call("DELETE", f"{path}/{key_id}", session)
        assert (gone.status_code, gone.json()["status"]) == (200, "revoked")
    for secret in (made["api_key"], turned.json()["api_key"]):
        assert_problem(await orgs.call("POST", "/v1/auth/token", secret), 401, "api_key_revoked")
    assert (await orgs.call("POST", "/v1/auth/token", first)).status_code == 200


async def test_what_the_plan_does_not_include_is_402_in_the_catalogs_words(orgs: Orgs) -> None:
    slug, session, _ = await signed_in(orgs)
    path = f"/v1/orgs/{slug}/keys"
    refused = await orgs.call("POST", path, session, {"kind": "live", "name": "CI"})
    told = assert_problem(refused, 402, "live_keys_suspended")
    assert told["reason"] == "live_keys_suspended"
    assert told["type"].endswith("/problems#plan_refused")
    assert told["supportContact"] == "mailto:contact@example.com"
    assert told["checkoutUrl"].endswith(f"/dash/{slug}/billing")
    await orgs.call("POST", path, session, {"kind": "test", "name": "2"})
    used = assert_problem(
        await orgs.call("POST", path, session, {"kind": "test", "name": "3"}), 402, "test_keys_allowance_used"
    )
    assert (used["used"], used["limit"]) == (2, 2)


async def test_a_retry_with_the_same_idempotency_key_gives_the_same_key(orgs: Orgs) -> None:
    slug, session, _ = await signed_in(orgs)
    path, body = f"/v1/orgs/{slug}/keys", {"kind": "test", "name": "CI"}
    answers = await asyncio.gather(
        *(orgs.call("POST", path, session, body, **{"Idempotency-Key": "once"}) for _ in range(4))
    )
    assert len({answer.json()["api_key"] for answer in answers}) == 1
    other = await orgs.call("POST", path, session, {"kind": "test", "name": "x"}, **{"Idempotency-Key": "once"})
    assert_problem(other, 422, "idempotency_key_reused")


ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/keys", None),
    ("POST", "/keys", {"kind": "test", "name": "CI"}),
    ("POST", "/keys/{key}/rotate", None),
    ("DELETE", "/keys/{key}", None),
    ("GET", "/members", None),
    ("GET", "/audit-log", None),
]


@pytest.mark.parametrize(("method", "route", "body"), ROUTES)
async def test_another_tenants_account_is_404_with_the_body_of_an_unknown_one(
    orgs: Orgs, method: str, route: str, body: Any
) -> None:
    slug, session, _ = await signed_in(orgs)
    theirs = (await orgs.call("GET", f"/v1/orgs/{slug}/keys", session)).json()["keys"][0]["id"]
    _, eves_session, eves_key = await signed_in(orgs, "eve@example.com")
    _, eves_token = await orgs.outsider("eve", org_id="org_eve", org_role="org:admin", org_slug=slug)
    before = await orgs.billing.rows("SELECT count(*), count(revoke_time) FROM api_key")
    for credential in (eves_session, eves_key, eves_token):
        said = []
        for account in (slug, "nobody", "%00", "no%20slug", "A" * 500):
            path = f"/v1/orgs/{account}{route.format(key=theirs)}"
            told = assert_problem(await orgs.call(method, path, credential, body), 404, "account_not_found")
            said.append({name: value for name, value in told.items() if name not in {"instance", "request_id"}})
        assert all(each == said[0] for each in said)
    assert await orgs.billing.rows("SELECT count(*), count(revoke_time) FROM api_key") == before


@pytest.mark.parametrize(("method", "act"), [("POST", "/rotate"), ("DELETE", "")])
async def test_another_tenants_key_is_404_with_the_body_of_an_unknown_one(orgs: Orgs, method: str, act: str) -> None:
    slug, session, _ = await signed_in(orgs)
    theirs = (await orgs.call("GET", f"/v1/orgs/{slug}/keys", session)).json()["keys"][0]["id"]
    eves_slug, eves_session, _ = await signed_in(orgs, "eve@example.com")
    said = []
    for key_id in (theirs, "key_" + "0" * 32, "x", "%00"):
        path = f"/v1/orgs/{eves_slug}/keys/{key_id}{act}"
        told = assert_problem(await orgs.call(method, path, eves_session), 404, "key_not_found")
        said.append({name: value for name, value in told.items() if name not in {"instance", "request_id"}})
    assert all(each == said[0] for each in said)
    assert (await orgs.call("GET", f"/v1/orgs/{slug}/keys", session)).json()["keys"][0]["status"] == "active"


@pytest.mark.parametrize(("method", "route", "body"), ROUTES)
async def test_nobody_gets_in_without_good_credentials(orgs: Orgs, method: str, route: str, body: Any) -> None:
    slug, session, key = await signed_in(orgs)
    path = f"/v1/orgs/{slug}{route.format(key='key_0')}"
    await orgs.call("GET", f"/v1/orgs/{slug}/keys", session)
    ended = session
    await sessions.end_session(ended, orgs.billing.context)
    stranger = orgs.issuer.token(key=rsa.generate_private_key(65537, 2048))
    for credential, code in (
        ("", "unauthenticated"),
        ("x", "api_key_malformed"),
        (key[:-1] + ("A" if key[-1] != "A" else "B"), "api_key_malformed"),
        (ended, "session_invalid"),
        ("ses_" + "0" * 33, "session_invalid"),
        (stranger, "token_invalid"),
        ("a.b.c", "token_invalid"),
    ):
        answer = await orgs.call(method, path, credential, body)
        assert_problem(answer, 401, code)
        assert "www-authenticate" in answer.headers


@pytest.mark.parametrize(("method", "route", "body"), ROUTES)
async def test_outside_local_mode_a_key_is_no_session(orgs: Orgs, method: str, route: str, body: Any) -> None:
    slug, _, key = await signed_in(orgs)
    path = f"/v1/orgs/{slug}{route.format(key='key_0')}"
    assert_problem(await orgs.call(method, path, key, body), 403, "session_required")


async def test_in_local_mode_a_key_of_the_accounts_owner_counts_as_a_session(local_orgs: Orgs) -> None:
    slug, _, key = await signed_in(local_orgs)
    made = await local_orgs.call("POST", f"/v1/orgs/{slug}/keys", key, {"kind": "test", "name": "CI"})
    assert made.status_code == 201, made.text
    # It was issued for the same person, so it counts too; one that an outside token issues is nobody's.
    assert (await local_orgs.call("GET", f"/v1/orgs/{slug}/audit-log", made.json()["api_key"])).status_code == 200
    other, token = await local_orgs.outsider("eve")
    theirs = await local_orgs.call("POST", f"/v1/orgs/{other}/keys", token, {"kind": "test", "name": "CI"})
    refused = await local_orgs.call("GET", f"/v1/orgs/{other}/keys", theirs.json()["api_key"])
    assert_problem(refused, 403, "session_required")


async def test_roles_a_member_reads_and_an_admin_changes(orgs: Orgs) -> None:
    slug, owner, _ = await signed_in(orgs)
    admin = await join(orgs, slug, "admin@example.com", Role.ADMIN)
    member = await join(orgs, slug, "member@example.com", Role.MEMBER)
    listed = (await orgs.call("GET", f"/v1/orgs/{slug}/members", member)).json()["members"]
    assert [(each["email"], each["role"], each["verified"]) for each in listed] == [
        ("ada@example.com", "owner", True),
        ("admin@example.com", "admin", True),
        ("member@example.com", "member", True),
    ]
    for method, route, body in ROUTES:
        answer = await orgs.call(method, f"/v1/orgs/{slug}{route.format(key='key_0')}", member, body)
        if method == "GET" and route != "/audit-log":
            assert answer.status_code == 200
        else:
            assert assert_problem(answer, 403, "insufficient_role")["role"] == "admin"
    assert (await orgs.call("POST", f"/v1/orgs/{slug}/keys", admin, ROUTES[1][2])).status_code == 201
    assert (await orgs.call("GET", "/v1/orgs", owner)).json()["orgs"][0]["role"] == "owner"


async def test_an_outside_token_makes_its_account_on_first_sight_once_though_ten_come_at_once(orgs: Orgs) -> None:
    tokens = [orgs.issuer.token(f"user_{n}", org_id="org_1", org_role="org:admin", org_slug="acme") for n in range(10)]
    answers = await asyncio.gather(*(orgs.call("GET", "/v1/orgs", token) for token in tokens))
    assert {answer.json()["orgs"][0]["slug"] for answer in answers} == {"acme"}
    assert await orgs.billing.rows("SELECT count(*) FROM account") == [(1,)]
    (entitlements,) = await orgs.billing.announced("EntitlementsChanged")
    assert (entitlements.entitlements.tier, entitlements.entitlements.version) == ("free", 1)
    assert len(orgs.issuer.asked) == 1


async def test_one_external_id_of_two_issuers_is_two_accounts(orgs: Orgs) -> None:
    mine, _ = await orgs.outsider("ada", org_id="org_1", org_role="org:admin", org_slug="acme")
    with issuing() as other:
        settings = {"clerk_issuer": other.url}
        async with running_orgs(str(orgs.billing.context.settings.billing_dsn), local=False, **settings) as second:
            second.issuer.url, second.issuer.key = other.url, other.key
            theirs, token = await second.outsider("ada", org_id="org_1", org_role="org:admin", org_slug="acme")
            assert theirs != mine
            assert_problem(await second.call("GET", f"/v1/orgs/{mine}/keys", token), 404, "account_not_found")


async def test_an_outside_admin_manages_keys_and_a_plain_member_only_sees_them(orgs: Orgs) -> None:
    slug, admin = await orgs.outsider("ada", o={"id": "org_1", "rol": "admin", "slg": "acme"})
    member = orgs.issuer.token("user_bob", o={"id": "org_1", "rol": "member", "slg": "acme"})
    path = f"/v1/orgs/{slug}/keys"
    made = await orgs.call("POST", path, admin, {"kind": "test", "name": "CI"})
    assert made.status_code == 201, made.text
    assert [key["id"] for key in (await orgs.call("GET", path, member)).json()["keys"]] == [made.json()["id"]]
    assert_problem(await orgs.call("DELETE", f"{path}/{made.json()['id']}", member), 403, "insufficient_role")


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({}, 200, ""),  # no organization: the user's own account
        ({"org_id": "org_1"}, 200, ""),  # no role: CONTRACT asks for one only where it is present
        ({"org_id": "org_1", "org_role": "org:admin"}, 200, ""),
        ({"o": {"id": "org_1", "rol": "admin"}}, 200, ""),
        ({"org_id": "org_1", "org_role": "org:member"}, 403, "insufficient_role"),
        ({"o": {"id": "org_1", "rol": "member"}}, 403, "insufficient_role"),
        ({"exp": 1}, 401, "token_expired"),
        ({"azp": "https://evil.example"}, 401, "token_invalid"),
    ],
    ids=str,
)
async def test_billing_by_an_outside_token_needs_the_admin_role_where_a_role_is_present(
    orgs: Orgs, said: dict[str, Any], status: int, code: str
) -> None:
    backend = Backend(orgs.config)
    app = create(orgs.config, backend)

    @app.get("/admin/test")
    async def route(caller: OutsideBiller) -> str:
        return caller.account_id

    headers = {"Authorization": f"Bearer {orgs.issuer.token(**said)}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        answer = await client.get("/admin/test", headers=headers)
        key = {"Authorization": f"Bearer {(await orgs.billing.sign_up()).api_key}"}
        assert_problem(await client.get("/admin/test", headers=key), 401, "token_required")
    await backend.close()
    if status == 200:
        ((account_id,),) = await orgs.billing.rows("SELECT account_id FROM outside_identity")
        assert (answer.status_code, answer.json()) == (200, account_id)
    else:
        assert_problem(answer, status, code)


async def test_a_bad_token_never_makes_the_gateway_ask_where_the_token_says(orgs: Orgs) -> None:
    with issuing() as trap:
        for headers in (
            {"jku": f"{trap.url}/jwks.json"},
            {"x5u": f"{trap.url}/cert.pem"},
            {"jku": f"{trap.url}/jwks.json", "kid": "k2"},
        ):
            token = orgs.issuer.token(key=trap.key, headers=headers)
            assert_problem(await orgs.call("GET", "/v1/orgs", token), 401, "token_invalid")
        assert_problem(await orgs.call("GET", "/v1/orgs", trap.token(iss=trap.url)), 401, "token_invalid")
        assert trap.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        (302, {"Location": "/elsewhere"}, b""),
        (500, {}, b""),
        (200, {}, b"x" * 300_000),
        (200, {}, b"not a key set"),
    ],
    ids=["redirect", "error", "huge", "garbage"],
)
async def test_a_key_set_that_is_none_is_503_and_no_redirect_is_followed(
    orgs: Orgs, answer: tuple[int, dict[str, str], bytes]
) -> None:
    orgs.issuer.answer = answer
    refused = await orgs.call("GET", "/v1/orgs", orgs.issuer.token())
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert orgs.issuer.asked == ["/.well-known/jwks.json"]


async def test_the_audit_log_tells_who_did_what_in_pages_and_no_secret(orgs: Orgs) -> None:
    slug, session, first = await signed_in(orgs)
    made = (await orgs.call("POST", f"/v1/orgs/{slug}/keys", session, {"kind": "test", "name": "CI"})).json()
    turned = (await orgs.call("POST", f"/v1/orgs/{slug}/keys/{made['id']}/rotate", session)).json()
    await orgs.call("DELETE", f"/v1/orgs/{slug}/keys/{made['id']}", session)
    entries: list[dict[str, Any]] = []
    token = ""
    while True:
        page = (await orgs.call("GET", f"/v1/orgs/{slug}/audit-log?page_size=2&page_token={token}", session)).json()
        entries += page["entries"]
        if not (token := page["next_page_token"] or ""):
            break
    assert [(each["action"], each["subject"]) for each in entries[:3]] == [
        ("key.revoked", made["id"]),
        ("key.rotated", made["id"]),
        ("key.issued", made["id"]),
    ]
    assert [each["action"] for each in entries[3:]] == ["key.issued", "account.created"]
    assert {each["actor"]["kind"] for each in entries[:3]} == {"session"}
    member = (await orgs.call("GET", f"/v1/orgs/{slug}/members", session)).json()["members"][0]
    assert {each["actor"]["id"] for each in entries[:3]} == {member["id"]}
    assert entries[1]["details"] == {"kind": "test", "successor": turned["id"], "overlap_seconds": 86_400}
    for secret in (first, made["api_key"], turned["api_key"], session):
        assert secret not in str(entries)


@pytest.mark.parametrize(
    ("query", "field"), [("page_size=0", "page_size"), ("page_size=x", "page_size"), ("page_token=x", "page_token")]
)
async def test_a_bad_page_names_its_parameter(orgs: Orgs, query: str, field: str) -> None:
    slug, session, _ = await signed_in(orgs)
    for route in ("keys", "audit-log"):
        answer = await orgs.call("GET", f"/v1/orgs/{slug}/{route}?{query}", session)
        assert answer.status_code == 422
        assert answer.json()["field"] == field


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"name": "x"}, "validation_failed", "kind"),
        ({"kind": "test"}, "validation_failed", "name"),
        ({"kind": "test", "name": ""}, "validation_failed", "name"),
        ({"kind": "test", "name": "a\nb"}, "validation_failed", "name"),
        ({"kind": "test", "name": " "}, "invalid_argument", "name"),
        ({"kind": "root", "name": "x"}, "unknown_key_kind", "kind"),
        ({"kind": "test", "name": "x", "scopes": ["all"]}, "validation_failed", "scopes"),
    ],
)
async def test_bad_input_names_its_field(orgs: Orgs, body: dict[str, Any], code: str, field: str) -> None:
    slug, session, _ = await signed_in(orgs)
    answer = await orgs.call("POST", f"/v1/orgs/{slug}/keys", session, body)
    assert assert_problem(answer, 422, code)["field"] == field


@pytest.mark.parametrize(
    "slug", ["..%2f..%2foperator", "%2e%2e", "..;", "%00", "%0d%0a", "%3Cimg%20src=x%20onerror=alert(1)%3E", "a" * 300]
)
async def test_a_slug_that_is_a_path_or_a_page_is_an_unknown_one(orgs: Orgs, slug: str) -> None:
    _, session, _ = await signed_in(orgs)
    answer = await orgs.call("GET", f"/v1/orgs/{slug}/members", session)
    problem = assert_problem(answer, 404, answer.json()["code"])
    assert problem["code"] in {"account_not_found", "route_not_found"}
    assert not set("<>\r\n\0") & set(problem["instance"])
