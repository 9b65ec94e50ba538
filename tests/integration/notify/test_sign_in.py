"""The mail that lets a person in: from the call to the mail server, with nothing kept of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from services.kit import errors
from services.kit.rpc import from_rpc_error
from tests.integration.notify.conftest import Inboxes, Notify, Shared
from tollway.notify.v1.sign_in_pb2 import SendSignInLinkRequest, SignInBrand
from tollway.notify.v1.sign_in_pb2_grpc import SignInMailServiceStub

TOKEN = "sil_4kQ2Wx9ZsAb8"
URL = f"https://billing.example/dash/sign-in/link?token={TOKEN}"


@pytest.fixture
async def mailing(notify: Notify) -> AsyncIterator[SignInMailServiceStub]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{notify.port}") as channel:
        yield SignInMailServiceStub(channel)


def asked(**changes: Any) -> SendSignInLinkRequest:
    brand = SignInBrand(name="Skytale", color="#0f766e", support_contact="mailto:contact@skytale.example")
    facts: dict[str, Any] = {"recipient": "ada@example.com", "url": URL, "brand": brand}
    request = SendSignInLinkRequest(**(facts | changes))
    request.expire_time.FromSeconds(int(time.time()) + 900)
    return request


async def refused(mailing: SignInMailServiceStub, request: SendSignInLinkRequest) -> errors.TollwayError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await mailing.SendSignInLink(request, timeout=15)
    return from_rpc_error(raised.value)


async def test_the_link_is_mailed_before_the_call_answers_and_nothing_of_it_is_kept(
    mailing: SignInMailServiceStub, shared: Shared, inboxes: Inboxes
) -> None:
    await mailing.SendSignInLink(asked(), timeout=15)
    (mail,) = inboxes.mails
    assert (mail["To"], mail["Subject"]) == ("ada@example.com", "Sign in to Skytale")
    assert mail["From"].addresses[0].display_name == "Skytale"
    assert mail["Reply-To"].addresses[0].addr_spec == "contact@skytale.example"
    html, text = mail.get_body(("html",)), mail.get_body(("plain",))
    assert html is not None
    assert text is not None
    assert f'href="{URL}"' in html.get_content()
    assert URL in text.get_content().splitlines()
    assert "works once, for 15 minutes" in text.get_content()
    assert list((await shared.notify.messages()).messages) == []
    assert TOKEN not in shared.notify.log()
    assert "ada@example.com" not in shared.notify.log()


async def test_it_comes_from_the_brands_own_address(mailing: SignInMailServiceStub, inboxes: Inboxes) -> None:
    await mailing.SendSignInLink(asked(brand=SignInBrand(name="Skytale", sender="hello@skytale.example")), timeout=15)
    assert inboxes.mails[0]["From"] == "Skytale <hello@skytale.example>"
    assert inboxes.envelopes[0].mail_from == "hello@skytale.example"


async def test_the_same_link_again_has_the_same_message_id(mailing: SignInMailServiceStub, inboxes: Inboxes) -> None:
    await mailing.SendSignInLink(asked(), timeout=15)
    await mailing.SendSignInLink(asked(), timeout=15)
    await mailing.SendSignInLink(asked(url=URL + "x"), timeout=15)
    ids = [mail["Message-ID"] for mail in inboxes.mails]
    assert ids[0] == ids[1] != ids[2]
    assert TOKEN not in ids[0]


async def test_a_mail_server_that_is_busy_and_one_that_refuses_read_differently(
    mailing: SignInMailServiceStub, inboxes: Inboxes
) -> None:
    inboxes.answers = ["451 busy"]
    assert (await refused(mailing, asked())).error_reason == "MAIL_NOT_ACCEPTED"
    inboxes.refuse = {"gone@example.com": "550 no such user"}
    assert (await refused(mailing, asked(recipient="gone@example.com"))).error_reason == "MAIL_REFUSED"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipient", "ada@example.com\r\nBcc: eve@example.com"),
        ("recipient", "ada@example.com, eve@example.com"),
        ("recipient", ""),
        ("url", "javascript:alert(1)"),
        ("url", "https://billing.example/\r\nX: y"),
        ("url", ""),
    ],
)
async def test_what_is_no_address_and_no_link_is_refused_by_name(
    mailing: SignInMailServiceStub, inboxes: Inboxes, field: str, value: str
) -> None:
    error = await refused(mailing, asked(**{field: value}))
    assert (error.code, error.field) == ("INVALID_ARGUMENT", field)
    assert inboxes.mails == []


async def test_nothing_that_the_catalog_or_a_person_typed_becomes_markup(
    mailing: SignInMailServiceStub, inboxes: Inboxes
) -> None:
    brand = SignInBrand(
        name='<img src=x onerror="alert(1)">\r\nBcc: eve@example.com {{7*7}}', color="red;}", support_contact="x"
    )
    await mailing.SendSignInLink(asked(brand=brand), timeout=15)
    (mail,) = inboxes.mails
    assert "Bcc" not in mail
    html = mail.get_body(("html",))
    assert html is not None
    assert "<img" not in html.get_content()
    assert "{{7*7}}" in html.get_content()
    assert "49" not in mail["Subject"]
    assert "red;" not in html.get_content()
