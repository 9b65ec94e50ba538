"""The operator's routes of mails: what they show, what they ask of notify, and who may."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.kit import errors
from tests.integration.gateway.conftest import Stack, standing
from tests.integration.gateway.test_operator import AUTH, TOKEN
from tests.integration.gateway.test_routes import assert_problem
from tollway.notify.v1 import notify_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/v1/operator/messages"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing_one() -> AsyncIterator[Stack]:
    async with standing(operator_token=TOKEN) as stack:
        yield stack


@pytest.fixture
def operated(standing_one: Stack) -> Stack:
    standing_one.notify.__init__()  # type: ignore[misc]
    return standing_one


async def test_mails_are_listed_by_state_page_by_page(operated: Stack) -> None:
    for number, state in enumerate((pb.MESSAGE_STATE_SENT, pb.MESSAGE_STATE_DEAD, pb.MESSAGE_STATE_SENT)):
        operated.notify.add(number, state)
    listed = await operated.http.get(PATH, params={"state": "dead", "account_id": "acct_1"}, headers=AUTH)
    assert (listed.status_code, listed.headers["cache-control"]) == (200, "no-store")
    assert listed.json() == {
        "messages": [
            {
                "id": f"msg_{1:032x}",
                "account_id": "acct_1",
                "kind": "receipt",
                "about": "in_1",
                "recipient": "ada@example.com",
                "state": "dead",
                "attempts": 1,
                "error": "the mail server answered 550",
                "message_id": "<receipt.1@example.com>",
                "erased": False,
                "created_at": "2026-04-01T00:00:00Z",
                "sent_at": None,
            }
        ],
        "next_page_token": None,
    }
    assert operated.notify.fault.asked["ListMessages"].account_id == "acct_1"
    everything = (await operated.http.get(PATH, params={"page_size": 2}, headers=AUTH)).json()
    assert everything["next_page_token"] == "next"
    await operated.http.get(PATH, params={"page_token": "next"}, headers=AUTH)
    assert operated.notify.fault.asked["ListMessages"].page_token == "next"


async def test_a_mail_is_shown_with_who_had_it_sent_again(operated: Stack) -> None:
    message = operated.notify.add(1)
    shown = (await operated.http.get(f"{PATH}/{message.id}", headers=AUTH)).json()
    assert (shown["state"], shown["sent_at"]) == ("sent", "2026-04-01T00:00:01Z")
    assert shown["resends"] == [{"actor": "operator", "previous_state": "dead", "created_at": "2026-04-02T00:00:00Z"}]
    assert_problem(await operated.http.get(f"{PATH}/msg_nothing", headers=AUTH), 404, "message_not_found")


async def test_sending_again_says_who_asked_under_the_callers_key_or_one_of_its_own(operated: Stack) -> None:
    message = operated.notify.add(1, pb.MESSAGE_STATE_DEAD)
    url = f"{PATH}/{message.id}/resend"
    answer = await operated.http.post(url, json={}, headers=AUTH | {"Idempotency-Key": '"click-1"'})
    assert (answer.status_code, answer.json()["state"]) == (200, "pending")
    asked = operated.notify.fault.asked["ResendMessage"]
    assert (asked.message_id, asked.request_id, asked.again) == (message.id, "click-1", False)
    assert asked.actor
    await operated.http.post(url, json={"again": True}, headers=AUTH)
    first = operated.notify.fault.asked["ResendMessage"]
    await operated.http.post(url, json={}, headers=AUTH)
    second = operated.notify.fault.asked["ResendMessage"]
    assert (first.again, second.again) == (True, False)
    assert len({first.request_id, second.request_id, "", "click-1"}) == 4


async def test_what_was_sent_is_refused_until_that_is_meant(operated: Stack) -> None:
    message = operated.notify.add(1)
    answer = await operated.http.post(f"{PATH}/{message.id}/resend", json={}, headers=AUTH)
    assert_problem(answer, 409, "message_already_sent")


async def test_a_page_token_of_nobodys_is_explained(operated: Stack) -> None:
    told = errors.InvalidArgument("This page token was not given by us.", reason="BAD_PAGE_TOKEN", field="page_token")
    operated.notify.fault.errors["ListMessages"] = told
    answer = await operated.http.get(PATH, params={"page_token": "x"}, headers=AUTH)
    assert assert_problem(answer, 422, "bad_page_token")["field"] == "page_token"
    assert 'id="bad_page_token"' in (await operated.http.get("/problems")).text


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("GET", f"{PATH}?state=gone", None, "state"),
        ("GET", f"{PATH}?page_size=0", None, "page_size"),
        ("POST", f"{PATH}/msg_1/resend", {"again": "yes"}, "again"),
        ("POST", f"{PATH}/msg_1/resend", {"to": "eve@evil.example"}, "to"),
    ],
)
async def test_bad_input_names_its_field(
    operated: Stack, method: str, path: str, body: dict[str, object] | None, field: str
) -> None:
    answer = await operated.http.request(method, path, json=body, headers=AUTH)
    assert assert_problem(answer, 422, "validation_failed")["field"] == field


@pytest.mark.parametrize(
    ("method", "path"), [("GET", PATH), ("GET", f"{PATH}/msg_1"), ("POST", f"{PATH}/msg_1/resend")]
)
async def test_nobody_but_an_operator_may(operated: Stack, method: str, path: str) -> None:
    _, auth = operated.account()
    body = {} if method == "POST" else None
    assert_problem(await operated.http.request(method, path, json=body), 401, "unauthenticated")
    assert_problem(await operated.http.request(method, path, json=body, headers=auth), 401, "operator_token_invalid")
    assert not operated.notify.fault.calls
