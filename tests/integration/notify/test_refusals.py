"""Mail servers that refuse, and what an operator sees of it."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from tests.integration.notify.conftest import Inboxes, Notify, Publish, paid
from tollway.notify.v1 import notify_pb2 as pb


async def test_a_passing_refusal_is_tried_again_under_the_same_message_id(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    inboxes.answers = ["451 come back later"]
    await publish(paid())
    await notify.reaches("SENT", "in_1")
    (message,) = (await notify.messages()).messages
    assert message.attempt_count == 2
    assert [mail["Message-ID"] for mail in inboxes.mails] == [message.message_id]


@pytest.mark.parametrize("answer", ["550 no such user", "554 looks like spam"])
async def test_a_final_refusal_is_dead_and_the_others_flow(
    notify: Notify, inboxes: Inboxes, publish: Publish, answer: str
) -> None:
    inboxes.refuse["gone@example.com"] = answer
    await publish(paid(1, customer_email="gone@example.com"))
    for number in range(2, 6):
        await publish(paid(number))
    await inboxes.wait(4)
    await notify.reaches("DEAD", "in_1")
    dead = (await notify.messages(state=pb.MESSAGE_STATE_DEAD)).messages
    assert [(m.subject_id, m.error) for m in dead] == [("in_1", f"the mail server answered {answer}")]


async def test_messages_are_listed_newest_first_page_by_page(
    notify: Notify, inboxes: Inboxes, publish: Publish
) -> None:
    for number in range(1, 8):
        await publish(paid(number))
        await notify.reaches("SENT", f"in_{number}")
    seen: list[str] = []
    token = ""
    while True:
        page = await notify.messages(page_size=3, page_token=token)
        assert len(page.messages) <= 3
        seen += [m.subject_id for m in page.messages]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"in_{number}" for number in range(7, 0, -1)]
    assert not (await notify.messages(account_id="acct_other")).messages


@pytest.mark.parametrize("token", ["x", "AAAA", "bXNnXyc7", "ünïcode", "bXNnXw"])
async def test_a_page_token_that_is_not_ours_is_refused(notify: Notify, token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await notify.messages(page_token=token)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = dict(refused.value.trailing_metadata() or ())["grpc-status-details-bin"]
    info = ErrorInfo()
    Status.FromString(details).details[0].Unpack(info)
    assert info.reason == "BAD_PAGE_TOKEN"
