"""What operators do with mails: see them, send one again; and an account's people are forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import grpc
import pytest

from services.kit import errors
from services.kit.rpc import from_rpc_error
from tests.integration.notify.conftest import BRAND, Billing, Inboxes, Notify, Publish, Shared, failed, paid, until
from tollway.billing.v1.events_pb2 import AccountErased
from tollway.billing.v1.recipient_pb2 import Recipient
from tollway.notify.v1 import notify_pb2 as pb
from tollway.notify.v1.notify_pb2_grpc import NotifyServiceStub


@pytest.fixture
async def asking(notify: Notify) -> AsyncIterator[NotifyServiceStub]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{notify.port}") as channel:
        yield NotifyServiceStub(channel)


async def id_of(notify: Notify, invoice: str) -> str:
    (found,) = [m.id for m in (await notify.messages(page_size=500)).messages if m.subject_id == invoice]
    return found


def moved_to(billing: Billing, address: str) -> None:
    billing.recipients["acct_1"] = Recipient(account_id="acct_1", contact_email=address, brand=BRAND)


async def refused(call: object) -> errors.TollwayError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call  # type: ignore[misc]
    return from_rpc_error(raised.value)


def request(message_id: str, request_id: str = "r1", *, again: bool = False) -> pb.ResendMessageRequest:
    return pb.ResendMessageRequest(message_id=message_id, request_id=request_id, actor="op_ada", again=again)


async def test_a_dead_mail_is_sent_again_to_the_address_the_account_has_now_and_it_is_noted_who_did(
    notify: Notify, inboxes: Inboxes, publish: Publish, billing: Billing, asking: NotifyServiceStub
) -> None:
    inboxes.refuse["ada@example.com"] = "550 no such user"
    await publish(paid(1))
    await notify.reaches("DEAD", "in_1")
    moved_to(billing, "new@example.com")
    message_id = await id_of(notify, "in_1")
    answer = await asking.ResendMessage(request(message_id), timeout=5)
    assert (answer.message.state, answer.message.recipient) == (pb.MESSAGE_STATE_PENDING, "new@example.com")
    (mail,) = await inboxes.wait(1)
    assert mail["To"] == "new@example.com"
    assert mail["Message-ID"] == answer.message.message_id
    await notify.reaches("SENT", "in_1")
    shown = await asking.GetMessage(pb.GetMessageRequest(message_id=message_id), timeout=5)
    assert [(r.actor, r.previous_state) for r in shown.resends] == [("op_ada", pb.MESSAGE_STATE_DEAD)]
    assert shown.message.attempt_count == 2


async def test_a_double_click_sends_one_mail(
    notify: Notify, inboxes: Inboxes, publish: Publish, billing: Billing, asking: NotifyServiceStub
) -> None:
    await publish(paid(1))
    await notify.reaches("SENT", "in_1")
    moved_to(billing, "ada@example.com")
    message_id = await id_of(notify, "in_1")
    clicks = [request(message_id, again=True), request(message_id, again=True), request(message_id, "r2", again=True)]
    await asyncio.gather(*(asking.ResendMessage(click, timeout=10) for click in clicks[:2]))
    await inboxes.wait(2)
    await notify.reaches("SENT", "in_1")
    await asking.ResendMessage(clicks[0], timeout=5)  # later, but the same click
    await publish(paid(2))
    await notify.reaches("SENT", "in_2")
    assert len([mail for mail in inboxes.mails if "0001" in mail["Subject"]]) == 2
    await asking.ResendMessage(clicks[2], timeout=5)
    await inboxes.wait(4)
    assert len({mail["Message-ID"] for mail in inboxes.mails}) == 2


async def test_what_was_sent_goes_again_only_when_that_is_said(
    notify: Notify, inboxes: Inboxes, publish: Publish, asking: NotifyServiceStub
) -> None:
    await publish(paid(1))
    await notify.reaches("SENT", "in_1")
    error = await refused(asking.ResendMessage(request(await id_of(notify, "in_1")), timeout=5))
    assert (error.code, error.error_reason) == ("FAILED_PRECONDITION", "MESSAGE_ALREADY_SENT")
    assert len(inboxes.mails) == 1


async def test_what_says_nothing_or_goes_to_nobody_is_not_sent(
    notify: Notify, inboxes: Inboxes, publish: Publish, billing: Billing, asking: NotifyServiceStub
) -> None:
    await publish(paid(1, amount_paid=0))
    await publish(paid(2, customer_email=""))
    await notify.reaches("SKIPPED", "in_1")
    await notify.reaches("SKIPPED", "in_2")
    error = await refused(asking.ResendMessage(request(await id_of(notify, "in_1")), timeout=5))
    assert error.error_reason == "NOTHING_TO_SEND"
    nobody = await id_of(notify, "in_2")
    assert (await refused(asking.ResendMessage(request(nobody), timeout=5))).error_reason == "NO_RECIPIENT"
    moved_to(billing, "new@example.com")
    await asking.ResendMessage(request(nobody), timeout=5)
    (mail,) = await inboxes.wait(1)
    assert mail["To"] == "new@example.com"


async def test_a_failure_notice_is_not_sent_again_once_the_invoice_is_paid(
    notify: Notify, inboxes: Inboxes, publish: Publish, asking: NotifyServiceStub
) -> None:
    await publish(paid(1))
    await notify.reaches("SENT", "in_1")
    await publish(failed(1))
    await notify.reaches("SKIPPED", "in_1", "payment_failed")
    skipped = [m.id for m in (await notify.messages()).messages if m.kind == "payment_failed"]
    error = await refused(asking.ResendMessage(request(skipped[0]), timeout=5))
    assert error.error_reason == "NOTHING_TO_SEND"
    assert "paid" in error.message


async def test_bad_requests_are_named_and_change_nothing(
    notify: Notify, inboxes: Inboxes, publish: Publish, billing: Billing, asking: NotifyServiceStub
) -> None:
    inboxes.refuse["ada@example.com"] = "550 no such user"
    for number in (1, 2):
        await publish(paid(number))
        await notify.reaches("DEAD", f"in_{number}")
    first, second = await id_of(notify, "in_1"), await id_of(notify, "in_2")
    assert (await refused(asking.ResendMessage(request("msg_x"), timeout=5))).error_reason == "MESSAGE_NOT_FOUND"
    shown = asking.GetMessage(pb.GetMessageRequest(message_id="msg_\x00"), timeout=5)
    assert (await refused(shown)).error_reason == "MESSAGE_NOT_FOUND"
    assert (await refused(asking.ResendMessage(request(first, ""), timeout=5))).field == "request_id"
    assert (await refused(asking.ResendMessage(request(first, "r" * 256), timeout=5))).field == "request_id"
    billing.down = True
    assert (await refused(asking.ResendMessage(request(first), timeout=10))).code == "UNAVAILABLE"
    assert await notify.state("in_1") == "DEAD"
    billing.down = False
    moved_to(billing, "new@example.com")
    await asking.ResendMessage(request(first), timeout=5)
    assert (await refused(asking.ResendMessage(request(second), timeout=5))).code == "ALREADY_EXISTS"


async def test_an_erased_accounts_addresses_and_contents_are_gone_for_good_and_others_stay(
    notify: Notify, inboxes: Inboxes, publish: Publish, shared: Shared, asking: NotifyServiceStub
) -> None:
    inboxes.refuse["gone@example.com"] = "550 <gone@example.com> has no mailbox here"
    await publish(paid(1))
    await publish(paid(2, customer_email="gone@example.com"))
    await publish(paid(3, account_id="acct_2"))
    for number, state in ((1, "SENT"), (2, "DEAD"), (3, "SENT")):
        await notify.reaches(state, f"in_{number}")
    inboxes.answers = ["451 later"] * 50
    await publish(paid(4, customer_email="waits@example.com"))
    await until(lambda: len(inboxes.answers) < 50)
    message_id = await id_of(notify, "in_1")
    await publish(AccountErased(account_id="acct_1"))
    await notify.reaches("SKIPPED", "in_4")
    await publish(failed(5, customer_email="late@example.com"))  # was under way when the account was erased
    inboxes.answers = []
    await publish(paid(6, account_id="acct_2"))
    await notify.reaches("SENT", "in_6")

    connection = await asyncpg.connect(shared.dsn.replace("+asyncpg", ""))
    try:
        rows = await connection.fetch("SELECT * FROM messages WHERE account_id = 'acct_1' ORDER BY subject_id")
        everything = repr(await connection.fetch("SELECT * FROM messages WHERE account_id = 'acct_1'"))
    finally:
        await connection.close()
    assert [(row["subject_id"], row["state"]) for row in rows] == [
        ("in_1", "sent"),
        ("in_2", "dead"),
        ("in_4", "skipped"),
    ]
    for trace in ("@example.com", "Ada", "ABCD1234"):
        assert trace not in everything
    assert not [mail for mail in inboxes.mails if mail["To"] in {"waits@example.com", "late@example.com"}]
    error = await refused(asking.ResendMessage(request(message_id, again=True), timeout=5))
    assert error.error_reason == "MESSAGE_ERASED"
    other, _ = (await notify.messages(account_id="acct_2")).messages
    assert other.recipient == "ada@example.com"
