"""What customers get."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.integration.notify.conftest import Inboxes, Notify, Publish, failed, paid, until


def text_of(mail: object, kind: str) -> str:
    part = mail.get_body((kind,))  # type: ignore[attr-defined]
    return str(part.get_content())


async def test_a_paid_invoice_brings_one_receipt_with_amount_number_and_both_links(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    await publish(paid())
    (mail,) = await inboxes.wait(1)
    assert mail["To"] == "ada@example.com"
    assert mail["From"] == "Skytale <billing@localhost>"
    assert mail["Subject"] == "Your Skytale receipt: $29.00 (invoice ABCD1234-0001)"
    for kind in ("plain", "html"):
        body = text_of(mail, kind)
        for fact in ("$29.00", "ABCD1234-0001", "March 1, 2026"):
            assert fact in body
        assert "https://invoice.example/i/1" in body
        assert "https://invoice.example/i/1/pdf" in body
    await notify.reaches("SENT", "in_1")
    (message,) = (await notify.messages(account_id="acct_1")).messages
    assert message.message_id == mail["Message-ID"]
    assert message.recipient == "ada@example.com"
    assert message.attempt_count == 1
    assert message.send_time.seconds > 0


async def test_a_failed_payment_brings_amount_due_grace_with_its_end_and_a_link_to_pay(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    await publish(failed())
    (mail,) = await inboxes.wait(1)
    assert mail["Subject"] == "Your Skytale payment of $29.00 failed"
    for kind in ("plain", "html"):
        body = text_of(mail, kind)
        for fact in ("$29.00", "7-day grace period", "March 8, 2026", "https://invoice.example/i/1"):
            assert fact in body


async def test_redelivery_and_repetition_bring_no_second_mail(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    event_id = await publish(paid(1))
    await publish(paid(1), event_id)
    await publish(paid(1))
    await publish(paid(2))
    await notify.reaches("SENT", "in_2")
    await notify.reaches("SENT", "in_1")
    assert sorted(mail["Subject"][-14:-1] for mail in inboxes.mails) == ["ABCD1234-0001", "ABCD1234-0002"]


async def test_one_notice_per_invoice_whatever_fails_how_often(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    await publish(failed(1))
    await notify.reaches("SENT", "in_1", "payment_failed")
    again = failed(1)
    again.attempt_count = 2
    await publish(again)
    confirm = failed(1)
    confirm.action_required = True
    await publish(confirm)
    await publish(failed(2))
    await notify.reaches("SENT", "in_2", "payment_failed")
    assert len(inboxes.mails) == 2


async def test_a_receipt_follows_a_failure_notice_of_the_same_invoice(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    await publish(failed())
    await notify.reaches("SENT", "in_1", "payment_failed")
    await publish(paid())
    await notify.reaches("SENT", "in_1", "receipt")
    assert len({mail["Message-ID"] for mail in inboxes.mails}) == 2


async def test_a_failure_that_arrives_after_the_payment_is_not_mailed(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    await publish(paid())
    await notify.reaches("SENT", "in_1")
    await publish(failed())
    await notify.reaches("SKIPPED", "in_1", "payment_failed")
    assert len(inboxes.mails) == 1


async def test_a_failure_notice_on_its_way_when_the_invoice_is_paid_is_not_tried_again(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    loop = asyncio.get_running_loop()

    async def paid_meanwhile() -> None:
        await publish(paid())
        await notify.reaches("SENT", "in_1")

    async def hold_until_paid() -> None:
        inboxes.on_content = None
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(paid_meanwhile(), loop))
        inboxes.answers = ["451 later"]

    inboxes.on_content = hold_until_paid
    await publish(failed())
    await notify.reaches("SKIPPED", "in_1", "payment_failed")
    assert len(inboxes.mails) == 1


async def test_a_failure_notice_still_waiting_is_withdrawn_when_the_invoice_is_paid(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    inboxes.answers = ["451 later", "451 later"]
    await publish(failed())
    await until(lambda: len(inboxes.answers) < 2)
    await publish(paid())
    await notify.reaches("SENT", "in_1")
    await notify.reaches("SKIPPED", "in_1", "payment_failed")
    assert [mail["Subject"][:12] for mail in inboxes.mails] == ["Your Skytale"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"amount_paid": 0}, "zero amount"), ({"customer_email": ""}, "no usable mail address")],
)
async def test_nothing_is_mailed_about_nothing_or_to_nobody(
    notify: Notify, inboxes: Inboxes, publish: Publish, change: dict[str, object], reason: str
) -> None:
    await publish(paid(1, **change))
    await publish(paid(2))
    await notify.reaches("SENT", "in_2")
    await notify.reaches("SKIPPED", "in_1")
    assert len(inboxes.mails) == 1
    skipped = [m for m in (await notify.messages()).messages if m.subject_id == "in_1"]
    assert reason in skipped[0].error


async def test_the_contact_address_goes_before_the_customers(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    await publish(paid(1, contact_email="billing@ada.example"))
    (mail,) = await inboxes.wait(1)
    assert mail["To"] == "billing@ada.example"
    assert inboxes.envelopes[0].rcpt_tos == ["billing@ada.example"]


async def test_the_mail_leaves_within_a_tenth_of_a_second(notify: Notify, inboxes: Inboxes, publish: Publish) -> None:
    await publish(paid(1))
    await inboxes.wait(1)
    delays = []
    for number in range(2, 22):
        began = time.time()
        await publish(paid(number))
        await inboxes.wait(number)
        delays.append(inboxes.times[-1] - began)
    delays.sort()
    print(f"event to mail: median {delays[10] * 1000:.0f} ms, longest {delays[-1] * 1000:.0f} ms")
    assert delays[0] < 0.1  # the others share the processor with whatever else runs on this machine


async def test_what_people_typed_adds_no_header_recipient_or_markup(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    event = paid(1, account_name='<img src=x onerror="alert(1)"> {{7*7}}\r\nBcc: eve@evil.example')
    event.invoice.number = "A\r\nBcc: eve@evil.example\r\n\r\nbody"
    event.invoice.brand.name = 'Sky\r\nBcc: eve@evil.example "<x@y.example>, '
    event.invoice.hosted_invoice_url = "javascript:alert(1)"
    event.invoice.invoice_pdf_url = 'https://ok.example/"onmouseover="x'
    await publish(event)
    (mail,) = await inboxes.wait(1)
    assert mail["Bcc"] is None
    assert inboxes.envelopes[0].rcpt_tos == ["ada@example.com"]
    assert [address.addr_spec for address in mail["From"].addresses] == ["billing@localhost"]
    html = text_of(mail, "html")
    assert "<img" not in html
    assert "{{7*7}}" in html
    assert "javascript:" not in html
    assert '"onmouseover' not in html
