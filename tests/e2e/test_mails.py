"""Mails beside receipts and failures, from what people do to what lands in their mailbox."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.e2e.world import World, until


async def test_using_up_the_month_is_told_once_by_mail_with_a_link_and_an_operator_can_send_it_again(
    world: World,
) -> None:
    customer = await world.sign_up()
    assert (await customer.send(85_000)).status_code == 200
    await until(lambda: world.mails(customer.email, "80%"), bool)
    assert (await customer.send(15_000)).status_code == 200
    assert (await customer.send()).status_code == 402
    (mail,) = await until(lambda: world.mails(customer.email, "used all your messages"), bool)
    for body in (mail["Text"], mail["HTML"]):
        assert "100,000" in body
        assert f"{world.stack.gateway_url}/dash/{customer.account['slug']}/billing" in body

    def notify(*words: str) -> str:
        given = {"TOLLWAY_OPERATOR_TOKEN": world.stack.operator_token, "TOLLWAY_API_URL": world.stack.gateway_url}
        command = [sys.executable, "-m", "tollway.cli.main", "notify", *words]
        done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = [line.split() for line in notify("list", "--account", customer.id).splitlines()[1:]]
    assert [(kind, state) for _, kind, state, *_ in listed] == [("usage_threshold", "sent")] * 2
    assert "is being sent to" in notify("resend", listed[0][0], "--again")
    both = await until(lambda: world.mails(customer.email, "used all your messages"), lambda mails: len(mails) == 2)
    assert both[0]["MessageID"] == both[1]["MessageID"]
    assert "Sent again" in notify("show", listed[0][0])
